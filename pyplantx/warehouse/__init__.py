"""The on-disk store: an LMDB index for everything small, content-addressed files for the rest.

The door is `pyplantx.warehouse.warehouse`; nothing is imported here, so that ``import pyplantx`` stays light.
"""
