"""The past: frames seen again, particles, missing and late frames."""
