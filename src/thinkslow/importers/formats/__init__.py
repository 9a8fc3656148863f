"""Readers for the file formats of other projects. They execute nothing in the files."""
