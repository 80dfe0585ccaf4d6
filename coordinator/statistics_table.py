"""A statistics round as a table for a terminal."""

import json
from time import gmtime, strftime
from typing import Any

from hushfleet.stability import MOVED

LEVELS = " ▁▂▃▄▅▆▇█"
BAR = 20
"""Characters of a whole share."""


def table(told: dict[str, Any]) -> list[str]:
    """The lines of one round, as `coordinator.statistics.described` gives it."""
    day = strftime("%Y-%m-%d %H:%M UTC", gmtime(told["time"]))
    windows = ", ".join(f"{kind}: {number}" for kind, number in told["windows"].items() if number)
    lines = [
        f"round {told['round']}, {day}: the sum over {told['devices']} devices, each counted once",
        f"noise {told['noise']}",
        f"devices by their number of windows: {windows}",
        "",
        f"{'channel':<16} {'unit':<10}{'devices':>7}{'missing':>9}{'mean':>12}{'sd':>12}{'spread':>12}{'drift':>8}"
        f"  {'low':>9} {'histogram':<16} high",
    ]
    lines += [_channel(channel) for channel in told["channels"]]
    if told["labels"]:
        labels = told["labels"]
        lines += ["", f"labels of {labels['devices']} devices: mean share, spread; drift {_drift(labels['drift'])}"]
        lines += [_class(name, one["share"], one["spread"]) for name, one in labels["classes"].items()]
    if told["model"]:
        lines += ["", *_model(told["model"])]
    lines += [
        "",
        "sd: of all readings; spread: how far the devices' own means or shares differ; drift: population stability",
        "index against the round before, below 0.1 alike, above 0.25 not",
    ]
    return lines


def schema_lines(told: dict[str, Any]) -> list[str]:
    """The channels as fleet.toml has them, standardised by what the round told, each if any device measures it."""
    rows = []
    for channel in told["channels"]:
        texts = [f"{name} = {json.dumps(channel[name])}" for name in ("name", "unit", "low", "high")]
        if channel["sd"]:
            texts += [f"{name} = {float(f'{channel[name]:.6g}')}" for name in ("mean", "sd")]
        rows.append(f"    {{ {', '.join(texts)} }},")
    return ["channels = [", *rows, "]"]


def _channel(channel: dict[str, Any]) -> str:
    columns = ("mean", "sd", "spread")
    numbers = "".join(f"{_number(channel[name]):>12}" for name in columns)
    tallest = max(channel["histogram"])
    bars = "".join(
        LEVELS[round(share / tallest * (len(LEVELS) - 1))] if tallest else LEVELS[0] for share in channel["histogram"]
    )
    return (
        f"{channel['name']:<16} {channel['unit']:<10}{channel['devices']:>7}{channel['missing']:>9.1%}{numbers}"
        f"{_drift(channel['drift']):>8}  {_number(channel['low']):>9} {bars} {_number(channel['high'])}"
    )


def _model(judged: dict[str, Any]) -> list[str]:
    """How the base model does."""
    lines = [f"model version {judged['version']} on rows kept aside by {judged['devices']} devices"]
    if "classes" in judged:
        lines.append(
            f"  accuracy {judged['accuracy']:.1%}, macro F1 {_number(judged['macro_f1'])}, "
            f"area under the curve {_number(judged['auc'])}"
        )
        classes = judged["classes"].items()
        return lines + [f"  {name:<24} F1 {_number(one['f1']):<8} area {_number(one['auc'])}" for name, one in classes]
    unit = f" {judged['unit']}" if judged["unit"] else ""
    if "mae" in judged:
        lines.append(f"  mean absolute error {_number(judged['mae'])}{unit}")
        lines.append(f"  pinball loss{unit} at {_levels(judged['pinball'])}")
    lines.append(f"  quantiles of the error{unit}: {_levels(judged['quantiles'])}")
    return lines


def _levels(told: dict[str, float]) -> str:
    return ", ".join(f"{level}: {_number(value)}" for level, value in told.items())


def _class(name: str, share: float, spread: float) -> str:
    return f"  {name:<24} {share:>7.1%}{spread:>8.1%}  {'█' * round(share * BAR)}"


def _drift(drift: float | None) -> str:
    return "-" if drift is None else f"{drift:.2f}{'!' if drift > MOVED else ''}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
