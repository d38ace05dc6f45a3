"""Walking through arrays in blocks: geometry, reading ahead, writing behind, maps and reductions.

::

    geometry    how arrays are cut, and what a block is; pure
    handles     one way to look at datasets, memory maps and plain arrays
    progress    how far a loop is
    inplace     whether arrays are read that the loop has written to
    loop        the loop itself, with its two threads
    alterations whether what was allocated has been written to since some point
    maps        map_blocks and reduce_blocks: the loop with the body in our hands
    workshop    what a run has of all this; the door that `pyplantx.pipework` uses

docs/design/arrays.md tells why.
"""
