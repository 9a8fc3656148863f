"""One module for each project: where its arrays are, and what they mean."""
