"""One episode to watch: frames, beliefs, and the thoughts of each arm.

`session.watch` plays, `episode` holds the episode, `seeing` decodes and imagines, `block` makes the
JSON of the page, and `page` and `film` write the page and the video.
"""
