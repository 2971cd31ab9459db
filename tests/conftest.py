"""What tests of several rooms need: one thread where networks are small, and a network that reads digits."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def one_thread():
    """Threads that wait for each other on busy cores make small networks slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def killed():
    """What does something in a child process, which is killed after so many seconds if it is not done before."""

    def run(act, seconds):
        child = os.fork()
        if child == 0:
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                act()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    return run


@pytest.fixture
def together(tmp_path):
    """What runs a script in two processes, with the environment that torchrun gives them; their exit statuses. One that is
    left alone by the other's failure is killed five seconds later.

    {tests!r} and {out} in the script are the folder of the tests, and one to write to; {name} what is passed by name.
    """

    def run(script, *args, seconds=150, **words):
        path = tmp_path / "user.py"
        path.write_text(textwrap.dedent(script).format(tests=str(Path(__file__).parent), out=str(tmp_path), **words))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
        runs = [subprocess.Popen([sys.executable, str(path), *args], env={**shared, **place}) for place in places]
        until = time.monotonic() + seconds
        while any(one.poll() is None for one in runs) and time.monotonic() < until:
            if any(one.returncode for one in runs):
                until = min(until, time.monotonic() + 5)
            time.sleep(0.05)
        for one in runs:
            one.kill()
            one.wait()
        return [one.returncode for one in runs]

    return run


@pytest.fixture(scope="session")
def digits():
    """A perceptron of six layers that reads digits, with calibration, choosing and test data."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    sizes = (64, 48, 48, 32, 32, 24, 10)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())][:-1]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    xt, yt = torch.from_numpy(x[:1000]), torch.from_numpy(y[:1000])
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(xt), yt).backward()
        optimizer.step()
    return net.eval(), (x[:600], y[:600]), (x[1000:1400], y[1000:1400]), (x[1400:], y[1400:])
