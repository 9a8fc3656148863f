"""Environments of the field, one module for each family. Importing them loads no simulator."""

from thinkslow.envs.families import (
    atari,
    craftax,
    crafter,
    dm_control,
    dmlab,
    memory_maze,
    minigrid,
    miniworld,
    popgym_arcade,
    procgen,
    vizdoom,
)
from thinkslow.envs.families.family import Family

FAMILIES: tuple[Family, ...] = (
    miniworld.OURS,
    miniworld.FAMILY,
    atari.FAMILY,
    atari.PRESET,
    minigrid.FAMILY,
    vizdoom.FAMILY,
    dm_control.FAMILY,
    crafter.FAMILY,
    memory_maze.FAMILY,
    craftax.FAMILY,
    popgym_arcade.FAMILY,
    procgen.FAMILY,
    dmlab.FAMILY,
    dmlab.GYM,
)
