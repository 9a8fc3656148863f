"""DreamerV3 as it was in 2023, profile `v1`: a second architecture behind the same contract."""
