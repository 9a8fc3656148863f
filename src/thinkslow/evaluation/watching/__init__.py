"""One episode to watch: what came, what was believed, and what each arm made of it.

`session.watch` plays, `episode` is what was played, `seeing` what the model makes of it, `block`
the JSON that the page holds, `page` and `film` are what people look at.
"""
