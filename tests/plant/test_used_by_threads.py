"""A plant that other threads use while its reactors run: they take turns, but not with a thread that waits for them."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import BadRequest
from pyplantx.session import gate

USES = {
    "fetch_ingredient": lambda plant: plant.fetch_ingredient("offset"),
    "produce": lambda plant: plant.produce("offset"),
    "set_config": lambda plant: plant.set_config({}),
    "check": lambda plant: plant.check(),
    "close": lambda plant: plant.close(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("executor", [None, "threads", ThreadPoolExecutor])
def test_a_function_of_a_loop_can_t_use_the_plant(tmp_path, use, executor):
    """With threads it waited for its reactor, which waited for it."""

    @ReactorFunc
    def offset(pipe):
        pipe.send("offset", 1)

    @ReactorFunc
    def total(pipe):
        def shifted(part):
            USES[use](plant)
            return part.sum()

        pipe.send("total", pipe.reduce_blocks(shifted, np.zeros((1000, 100)), memory="64kB"))

    with (
        executor(2) if callable(executor) else nullcontext(executor) as given,
        Plant(tmp_path, executor=given) as plant,
    ):
        plant.add_reactor(offset, total)
        plant.produce("offset")
        with pytest.raises(BadRequest, match=r"can't (use|close) (its plant|the plant of its reactor)"):
            plant.produce("total")


def test_a_thread_that_waits_for_long_says_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(gate, "_PATIENCE", 0.05)
    bert = threading.Thread(target=lambda: got.append(plant.produce("other")), name="Bert")
    got = []

    @ReactorFunc
    def parent(pipe):
        bert.start()
        bert.join(0.5)  # without a limit it would be for ever
        pipe.send("x", len(got))

    @ReactorFunc
    def other(pipe):
        pipe.send("other", 2)

    with caplog.at_level(logging.WARNING, "pyplantx"), Plant(tmp_path) as plant:
        plant.add_reactor(parent, other)
        assert plant.produce("x") == 0
        bert.join()
        assert got == [2]
    assert "Bert has waited" in caplog.text
    assert "same plant" in caplog.text
