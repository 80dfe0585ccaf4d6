"""Learning: layer lists, local training, the server step and metrics, all in numpy on one flat vector."""
