"""The watch federation's one learning task: what the demo and the benchmark of all splits share."""

from hushfleet.wire.layers import Dense
from hushfleet_demo.task import Task

CLASSES = 7
FEATURES = 36

TASK = Task(
    features=tuple(f"f{column:02d}" for column in range(FEATURES)),
    layers=(Dense(FEATURES, 64, "relu"), Dense(64, CLASSES)),
    head="softmax",
    init_seed=b"smartwatch shoulder exercises, 0",
    rounds=60,
    steps=20,
    batch=32,
    rate=0.05,
    momentum=0.5,
    # Above the longest delta seen in any split (1.8, in the first round; half of all are below 0.4): nothing is cut.
    clip=2.0,
    largest_survivor_set=16,
    codec="default",
)
