"""The watch federation's one learning task: what the demo and the benchmark of all splits share."""

from hushfleet.learning.layers import Dense, Head

CLASSES = 7
FEATURES = 36
LAYERS = (Dense(FEATURES, 64, "relu"), Dense(64, CLASSES))
HEAD: Head = "softmax"
INIT_SEED = b"smartwatch shoulder exercises, 0"

ROUNDS = 40
STEPS = 20
