"""Keras models: config, weights and optimizer state come back. Runs where Keras 3 and a backend are installed."""

from __future__ import annotations

import pytest

from pyplantx import specs
from pyplantx.errors import CannotStore, DamagedObject
from pyplantx.spec_tests import FolderPayload, FolderStage, stored
from pyplantx.specs.services import Services

np = pytest.importorskip("numpy")
keras = pytest.importorskip(
    "keras", reason="Keras 3 with a backend (KERAS_BACKEND) is not installed", exc_type=ImportError
)

SPEC = specs.KerasModelSpec()


def model(units=3, seed=1, compiled=False):
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1)])
    if compiled:
        made.compile(optimizer="adam", loss="mse")
    return made


def test_a_model_comes_back():
    sent = model()
    data = np.random.default_rng(0).random((5, 4)).astype("f4")
    assert specs.SpecRegistry().infer(sent).name == "keras"
    with stored(SPEC, sent) as entry:
        assert entry.payload.parts() == ("model.keras",) and entry.meta["parameters"] == 19
        received = entry.open()
        assert type(received) is type(sent) and received.name == sent.name
        assert all(np.array_equal(a, b) for a, b in zip(sent.get_weights(), received.get_weights()))
        assert np.array_equal(sent.predict(data, verbose=0), received.predict(data, verbose=0))
        assert "19 parameters" in entry.preview()
        with stored(SPEC, received) as again:
            assert again.written.digest == entry.written.digest
        received.set_weights([0 * weight for weight in received.get_weights()])
        assert np.array_equal(entry.open().get_weights()[0], sent.get_weights()[0])


def test_what_makes_the_digest():
    digests = []
    for made in (model(), model(seed=2), model(units=4), model(compiled=True)):
        with stored(SPEC, made) as one, stored(SPEC, made) as two:
            assert one.written.digest == two.written.digest
            digests.append(one.written.digest)
    assert len(set(digests)) == 4


def test_optimizer_state_counts_and_comes_back():
    sent = model(compiled=True)
    with stored(SPEC, sent) as before:
        sent.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
        with stored(SPEC, sent) as after:
            assert before.written.digest != after.written.digest
            received = after.open()
            left, right = ([np.asarray(v) for v in m.optimizer.variables] for m in (sent, received))
            assert len(left) == len(right) and all(map(np.array_equal, left, right))


def test_project_layers_are_noted():
    @keras.saving.register_keras_serializable("tests")
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    spec = specs.KerasModelSpec().serve(Services(is_project_class=lambda kind: kind is Twice))
    with stored(spec, keras.Sequential([keras.Input((2,)), Twice()])) as entry:
        assert entry.meta["classes"] == [f"{__name__}:{Twice.__qualname__}"]
        assert type(entry.open().layers[0]) is Twice


def test_other_values_are_refused(tmp_path):
    with pytest.raises(CannotStore, match="value is a int"):
        SPEC.write(5, FolderStage(str(tmp_path)))
    (tmp_path / "model.keras").write_bytes(b"PK no archive")
    with pytest.raises(DamagedObject, match="not a zip archive"):
        SPEC.open(FolderPayload(str(tmp_path), ["model.keras"]), {}, 1)
