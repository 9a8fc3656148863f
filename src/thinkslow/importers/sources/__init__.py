"""One file a project: where its arrays are and what they mean."""
