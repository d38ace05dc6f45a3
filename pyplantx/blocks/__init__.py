"""Walking through arrays in blocks: geometry, reading ahead, writing behind, maps, reductions, going on after a kill.

::

    geometry    how arrays are cut, and what a block is; pure
    handles     one way to look at datasets, memory maps and plain arrays
    progress    how far a loop is
    inplace     whether arrays are read that the loop has written to
    loop        the loop itself, with its two threads
    maps        map_blocks and reduce_blocks: the loop with the body in our hands
    travel      blocks, and the functions for them, on their way to other processes
    places      where an array lies in a file, so that another process can map it
    spaced      parts of arrays that have gaps, on that way
    logbook     what is noted in the ledger of a piece of work, and what is believed of it after a kill
    outputs     the arrays that a loop fills, and how their blocks outlive a kill
    attempt     a loop that fills arrays and can go on
    reduction   a reduction that can go on
    sources     what a loop reads, so that a block counts only for what it was made from
    captured    what a function of blocks stands on besides its blocks
    alterations whether what was allocated has been written to since some point
    workshop    what a run has of all this; the door that `pyplantx.pipework` uses

docs/design/arrays.md tells why.
"""
