"""One measurement in a process of its own: import the program, run it, print JSON.

    python measure.py PROGRAM.py SEED STORE [count]

The clock runs from the end of the import to the stored result. With `count` the steps that really ran are
counted instead (a profile function slows everything, so the time then means nothing).
"""

import json
import os
import sys
import time


def imported(path):
    sys.path.insert(0, os.path.dirname(path))
    return __import__(os.path.basename(path)[:-3])


def counted(program, call):
    """The call's result, and how many of the program's steps ran."""
    ran = set()

    def notice(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename == program.__file__ and code.co_name[0] == "r" != code.co_name[:2]:
            ran.add(code.co_name)

    sys.setprofile(notice)
    try:
        result = call()
    finally:
        sys.setprofile(None)
    return result, len(ran - {"run"})


def main():
    path, seed, store, *mode = sys.argv[1:]
    os.environ["BENCH_STORE"] = store
    program = imported(path)
    steps = None
    start = time.perf_counter()
    if mode:
        result, steps = counted(program, lambda: program.run(int(seed), store))
    else:
        result = program.run(int(seed), store)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "result": result, "steps": steps}))


main()
