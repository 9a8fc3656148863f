"""DreamerV3 of 2023, profile `v1`: a second architecture with the same contract."""
