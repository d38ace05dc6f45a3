"""Every example of PyPlant's README, with the package name replaced.

Each test holds one piece of that README as it stands there and adds what the README leaves out: the
functions that it only names, and a look at the result. `super(self).__init__()` in it is a slip that
raises TypeError in any Python; it is written `super().__init__()` here.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from pages import environment

HEAD = "import numpy as np\nfrom pyplantx import *\n"

MINIMAL = """
    from pyplantx import *

    def expensive_operation():
        print('expensive')
        return [1, 2, 3]

    def plot_examples(data, color):
        print('plot', data, color)

    @ReactorFunc
    def load_data(pipe):
        data = expensive_operation()
        pipe.send('data', data)

    @ReactorFunc
    def plot_data(pipe, config):
        data = yield pipe.receive('data')
        plot_examples(data, config.color)
"""

CONFIG = """
    class MyConfig(ConfigBase):
        def __init__(self):
            super().__init__()
            self.color = 'red'
"""


@pytest.fixture
def play(tmp_path):
    """Run pieces of a script in a process of its own; return the lines that it prints."""

    def play(*pieces: str) -> list[str]:
        path = tmp_path / "script.py"
        path.write_text(HEAD + "".join(textwrap.dedent(piece) for piece in pieces), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return play


def test_minimal_example(play):
    run = """
        with Plant('plant') as plant:
            plant.set_config(MyConfig())
            plant.run_reactor(plot_data)
    """
    assert play(MINIMAL, CONFIG, run) == ["expensive", "plot [1, 2, 3] red"]
    assert play(MINIMAL, CONFIG, run) == ["plot [1, 2, 3] red"]
    assert play(MINIMAL, CONFIG.replace("red", "blue"), run) == ["plot [1, 2, 3] blue"]


def test_config_given_as_a_dict(play):
    run = """
        @ReactorFunc
        def show(pipe):
            color = pipe.read_config('color')
            print(color)

        config = {'color': 'green'}
        with Plant('plant') as plant:
            plant.set_config(config)
            plant.run_reactor(show)
    """
    assert play(run) == ["green"]


ADDING = ["plant.add_reactor([load_data, plot_data])", "plant.add_reactors(load_data, plot_data)"]


@pytest.mark.parametrize("adding", ADDING)
def test_reactors_added_by_hand(play, adding):
    run = f"""
        with Plant('plant') as plant:
            {adding}
            plant.set_config(MyConfig())
            plant.run_reactor(plot_data)
            print(len(plant.get_reactors()))
    """
    assert play(MINIMAL, CONFIG, run) == ["expensive", "plot [1, 2, 3] red", "2"]


def test_reactors_added_by_hand_are_the_only_ones(play):
    run = """
        with Plant('plant') as plant:
            plant.add_reactor(plot_data)
            plant.set_config(MyConfig())
            try:
                plant.run_reactor(plot_data)
            except errors.NoProducer as error:
                print("'data'" in str(error))
    """
    assert play(MINIMAL, CONFIG, run) == ["True"]


def test_annotated_pipework_argument(play):
    run = """
        @ReactorFunc
        def plot_data(pipe: Pipework):
            print(isinstance(pipe, Pipework))

        plant = Plant('plant')
        plant.run_reactor(plot_data)
        plant.shutdown()
    """
    assert play(run) == ["True"]


def test_ingredient_type_given(play):
    run = """
        @ReactorFunc
        def make(pipe):
            ingredient = {'a': 1}
            pipe.send('name', ingredient, Ingredient.Type.object)
            pipe.send('n', 3, Ingredient.Type.simple)
            pipe.send('l', [1, 'b'], Ingredient.Type.list)
            pipe.send('arr', np.zeros(2), Ingredient.Type.array)

        @ReactorFunc
        def show(pipe):
            ingredient = yield pipe.receive('name')
            n = yield pipe.receive('n')
            l = yield pipe.receive('l')
            arr = yield pipe.receive('arr')
            print(ingredient, n, l, arr)

        with Plant('plant') as plant:
            plant.run_reactor(show)
    """
    assert play(run) == ["{'a': 1} 3 [1, 'b'] [0. 0.]"]


def test_registered_specs_and_an_hdf_array(play):
    run = """
        import scipy.sparse

        @ReactorFunc
        def make(pipe):
            hdf_array = pipe.allocate('hdf-array', specs.HdfArraySpec,
                                      shape=(5, 10, 10), dtype=np.float32)
            hdf_array[2] = 7
            pipe.send('hdf-array', hdf_array)
            array = np.arange(4)
            pipe.send('my-hdf-array', array, specs.HdfArraySpec)
            pipe.send('sparse', scipy.sparse.eye(3, format='csr'), specs.ScipySparseSpec)

        @ReactorFunc
        def show(pipe):
            a, b, c = yield pipe.receive('hdf-array', 'my-hdf-array', 'sparse')
            print(a.shape, a[2, 0, 0], b[:].tolist(), c.nnz)

        with Plant('plant') as plant:
            plant.warehouse.register_ingredient_specs([specs.HdfArraySpec(), specs.ScipySparseSpec()])
            plant.run_reactor(show)
    """
    assert play(run) == ["(5, 10, 10) 7.0 [0, 1, 2, 3] 3"]


def test_file_ingredient(play):
    run = """
        @ReactorFunc
        def make(pipe):
            path = pipe.allocate('notes', Ingredient.Type.file)
            open(path, 'w').write('hello')
            pipe.send('notes', path, Ingredient.Type.file)

        @ReactorFunc
        def show(pipe):
            path = yield pipe.receive('notes')
            print(open(path).read())

        with Plant('plant') as plant:
            plant.run_reactor(show)
    """
    assert play(run) == ["hello"]


AUXILIARY = """
    @ReactorFunc
    def work(pipe):
        print('working', pipe.read_config('log-level'))
        pipe.send('done', True)

    def go(level):
        with Plant('plant') as plant:
            {mark}
            plant.set_config({config})
            plant.produce('done')

    go('info')
    go('debug')
"""


def test_params_marked_in_the_plant(play):
    mark = "plant.mark_params_as_auxiliary(['log-level'])"
    assert play(AUXILIARY.format(mark=mark, config="{'log-level': level}")) == ["working info"]


def test_params_marked_in_the_constructor(play):
    config = """
        class MyConfig(ConfigBase):
            def __init__(self, level):
                super().__init__()
                setattr(self, 'log-level', level)
                self.mark_auxiliary(['log-level'])
    """
    assert play(config, AUXILIARY.format(mark="pass", config="MyConfig(level)")) == ["working info"]


SUBREACTORS = """
    @SubreactorFunc
    def subreactor_a(pipe: Pipework):
        return 3 + 10 # Do stuff.

    @SubreactorFunc
    def subreactor_b(pipe: Pipework):
        value = yield from subreactor_a(pipe)
        return value

    @ReactorFunc
    def reactor_a(pipe: Pipework):
        value = yield from subreactor_b(pipe)
        pipe.send('value', value, Ingredient.Type.simple)

    with Plant('plant') as plant:
        print(plant.produce('value'), [entry['reactor'] for entry in plant.get_execution_history()])
"""


def test_subreactors(play):
    assert play(SUBREACTORS) == ["13 ['reactor_a']"]
    assert play(SUBREACTORS) == ["13 []"]
    assert play(SUBREACTORS.replace("3 + 10", "3 + 20")) == ["23 ['reactor_a']"]


def test_subreactor_arguments(play):
    run = """
        @SubreactorFunc
        def my_subreactor(argA, argB):
            return argA + argB

        @ReactorFunc
        def main(pipe):
            returnValue = yield from my_subreactor(1, argB=2)
            print(returnValue)

        with Plant('plant') as plant:
            plant.run_reactor('main')
    """
    assert play(run) == ["3"]


def test_uses_that_its_users_know(play):
    run = """
        heard = []
        def listener(event, name, *rest):
            heard.append((event.name, name))

        with Plant('plant') as plant:
            for event in (Plant.EventType.reactor_started, Plant.EventType.reactor_finished):
                plant.add_event_listener(event, listener)
            plant.set_config(MyConfig())
            plant.run_reactor(plot_data)
            print(plant.is_ingredient_known('data'), plant.is_ingredient_known('dato'))
            print(plant.fetch_ingredient('data'))
            print([entry['reactor'] for entry in plant.get_execution_history()])
            plant.print_execution_history()
        print(sorted(heard))
    """
    lines = play(MINIMAL, CONFIG, run)
    assert lines[:2] == ["expensive", "plot [1, 2, 3] red"]
    assert lines[2:4] == ["True False", "[1, 2, 3]"]
    assert sorted(eval(lines[4])) == ["load_data", "plot_data"]
    assert sorted(line.split(":")[0] for line in lines[5:-1]) == ["load_data", "plot_data"]
    assert eval(lines[-1]) == [
        ("reactor_finished", "load_data"),
        ("reactor_finished", "plot_data"),
        ("reactor_started", "load_data"),
        ("reactor_started", "plot_data"),
    ]


def test_stores_to_a_directory_and_back(play):
    run = """
        with Plant('plant') as plant:
            plant.set_config(MyConfig())
            plant.run_reactor(plot_data)
            utils.store_ingredients_to_dir(plant, ['data'], 'out')
            utils.store_reactor_inputs_to_dir(plant, plot_data, 'inputs')
        print(utils.load_ingredients_from_dir('out'), utils.load_ingredients_from_dir('inputs'))
    """
    assert play(MINIMAL, CONFIG, run)[-1] == "{'data': [1, 2, 3]} {'data': [1, 2, 3]}"
