"""What a fleet will cost before anything is deployed: `hushfleet plan`."""
