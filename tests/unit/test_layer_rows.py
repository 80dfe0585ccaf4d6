"""The layer list of fleet.toml: what may be left out, and what is said of mistakes."""

from pathlib import Path

import pytest

from fleet.settings import FleetSettings
from hushfleet.configuration import load
from hushfleet.errors import ConfigurationError
from hushfleet.wire.layers import (
    AvgPool,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    GlobalAverage,
    Gru,
    Layer,
    LayerNorm,
    MaxPool,
)


def layers_of(tmp_path: Path, *rows: str) -> tuple[Layer, ...]:
    """The layer list of a fleet.toml with these rows."""
    file = tmp_path / "fleet.toml"
    file.write_text(f'[fleet]\nname = "a"\n[model]\nname = "m"\nlayers = [{", ".join(rows)}]\n')
    return load(file, FleetSettings).model.layer_list()


def test_a_layer_takes_what_the_one_before_gives(tmp_path: Path) -> None:
    assert layers_of(
        tmp_path,
        '{ kind = "conv1d", length = 128, channels = 6, filters = 16, kernel = 5, stride = 2, act = "relu" }',
        '{ kind = "conv1d", filters = 32, kernel = 5, act = "relu" }',
        '{ in = 1856, out = 6, act = "none" }',
    ) == (Conv1d(128, 6, 16, 5, 2, "relu"), Conv1d(62, 16, 32, 5, 1, "relu"), Dense(1856, 6))
    assert layers_of(
        tmp_path,
        '{ kind = "layer_norm", length = 128, channels = 6, act = "none" }',
        '{ kind = "depthwise_conv1d", kernel = 5, act = "none" }',
        '{ kind = "avgpool", size = 2 }',
        '{ kind = "maxpool", size = 3 }',
        '{ kind = "gru", units = 8 }',
        '{ in = 8, out = 12, act = "tanh" }',
        '{ kind = "global_average", length = 4, channels = 3 }',
    ) == (
        LayerNorm(128, 6),
        DepthwiseConv1d(128, 6, 5),
        AvgPool(124, 6, 2),
        MaxPool(62, 6, 3),
        Gru(20, 6, 8),
        Dense(8, 12, "tanh"),
        GlobalAverage(4, 3),
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ('{ kind = "conv1d", filters = 2, kernel = 2, act = "none" }',),
            r"fleet.toml: model: layer 1, conv1d: give it length \(steps\) and channels",
        ),
        (
            ('{ in = 8, out = 8, act = "none" }', '{ kind = "conv1d", filters = 2, kernel = 2, act = "none" }'),
            "layer 2, conv1d: give it length",
        ),
        (
            ('{ kind = "gru", length = 8, channels = 2, units = 4 }', '{ in = 5, out = 2, act = "none" }'),
            "fleet.toml: model: layer 1 gives 4 numbers but layer 2 takes 5 numbers: make them equal",
        ),
        (('{ kind = "maxpool", length = 8, channels = 2, size = 9 }',), "layer 1, maxpool: a window of 9 steps"),
        (('{ kind = "conv2d", in = 1 }',), r"model.layers\[0\].kind: 'conv2d' is unknown; did you mean 'conv1d'"),
        (('{ in = 8, out = 8, act = "none", kernel = 3 }',), r"model.layers\[0\].kernel: unknown key"),
        (('{ kind = "conv1d", in = 8 }',), r"(?s)layers\[0\].in: unknown key.*layers\[0\].filters: missing"),
        (
            ('{ kind = "conv1d", length = 0, channels = 70000, filters = 2, kernel = 2, act = "none" }',),
            r"(?s)layers\[0\].length: expected a whole number.*layers\[0\].channels: expected a whole number",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, rows: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        layers_of(tmp_path, *rows)


@pytest.mark.parametrize(
    ("personal", "why"),
    [(2, "2 of 2 layers are personal: at least the first one is shared"), (3, "3 of 2 layers are personal")],
)
def test_not_every_layer_can_be_each_devices_own(tmp_path: Path, personal: int, why: str) -> None:
    file = tmp_path / "fleet.toml"
    rows = '{ in = 3, out = 8, act = "relu" }, { in = 8, out = 2, act = "none" }'
    file.write_text(f'[fleet]\nname = "a"\n[model]\nname = "m"\nlayers = [{rows}]\npersonal = {personal}\n')
    with pytest.raises(ConfigurationError, match=why):
        load(file, FleetSettings)


def test_layers_without_parameters_are_no_part_of_a_model_by_themselves(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    rows = '{ kind = "avgpool", length = 8, channels = 2, size = 2 }, { in = 8, out = 2, act = "none" }'
    file.write_text(f'[fleet]\nname = "a"\n[model]\nname = "m"\nlayers = [{rows}]\npersonal = 1\n')
    with pytest.raises(ConfigurationError, match="the shared layers have no parameters: move the border, personal = 1"):
        load(file, FleetSettings)
