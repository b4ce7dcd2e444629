"""LeRobot's asynchronous action queue in a robot that only notes what it is told.

Runs in LeRobot's own environment. `RobotClient._aggregate_action_queues`, `control_loop_action` and the loop
around them are LeRobot's and unchanged; the robot, the network and the policy server are stand-ins.
Everything of LeRobot beside `lerobot.async_inference` is a stand-in too: none of it is asked for anything.

    python lerobot_worker.py HZ SECONDS SEND_MS LO_MS HI_MS
"""

import importlib.abc
import importlib.machinery
import itertools
import json
import logging
import random
import sys
import threading
import time
import types
from queue import Queue
from unittest.mock import MagicMock

CHUNK = 50
REAL = ("lerobot", "lerobot.async_inference")


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an empty module, whose every name is a mock, for what only a real robot needs."""

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in ("lerobot", "draccus", "grpc") or name in REAL or name.startswith(f"{REAL[1]}."):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: MagicMock(name=name)
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, StandIns())

import torch  # noqa: E402
from lerobot.async_inference.helpers import TimedAction  # noqa: E402
from lerobot.async_inference.robot_client import RobotClient  # noqa: E402


class Robot:
    """Sending takes a while; every command is noted."""

    action_features = ("step",)

    def __init__(self, send):
        self.send, self.sent = send, []

    def get_observation(self):
        return {}

    def send_action(self, action):
        self.sent.append((time.perf_counter(), action["step"]))
        time.sleep(self.send)
        return action


class Client(RobotClient):
    """A client whose observations go to a queue instead of a server."""

    def __init__(self, hz, send):
        self.config = types.SimpleNamespace(environment_dt=1.0 / hz, fps=hz)
        self.robot, self.observations = Robot(send), Queue()
        self.shutdown_event, self.must_go = threading.Event(), threading.Event()
        self.must_go.set()
        self.latest_action_lock, self.action_queue_lock = threading.Lock(), threading.Lock()
        self.latest_action, self.action_chunk_size = -1, CHUNK
        self._chunk_size_threshold = 0.5
        self.action_queue, self.action_queue_size = Queue(), []
        self.start_barrier = threading.Barrier(2)

    def send_observation(self, obs):
        self.observations.put(obs)
        return True

    def answer(self, lo, hi):
        """The policy server and the receiver: the newest observation, an inference, the queue's update."""
        self.start_barrier.wait()
        draw = random.Random(7)
        while self.running:
            obs = self.observations.get()
            while not self.observations.empty():
                obs = self.observations.get()
            if obs is None:
                return
            time.sleep(draw.uniform(lo, hi))
            first = obs.get_timestep()
            chunk = [
                TimedAction(
                    timestamp=obs.get_timestamp(), timestep=first + i, action=torch.tensor([float(first + i)])
                )
                for i in range(CHUNK)
            ]
            self._aggregate_action_queues(chunk, lambda old, new: 0.3 * old + 0.7 * new)
            self.must_go.set()


def main():
    hz, seconds, send, lo, hi = map(float, sys.argv[1:])
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    client = Client(hz, send / 1e3)
    server = threading.Thread(target=client.answer, args=(lo / 1e3, hi / 1e3))
    server.start()

    def stop():
        # the time counts from the first action
        while not client.robot.sent:
            time.sleep(0.01)
        time.sleep(seconds)
        client.shutdown_event.set()
        client.observations.put(None)

    threading.Thread(target=stop).start()
    client.control_loop(task="")
    server.join()
    times, steps = zip(*client.robot.sent, strict=True)
    again = sum(b <= a for a, b in itertools.pairwise(steps))
    print(json.dumps({"sent": len(steps) - 1, "seconds": times[-1] - times[0], "repeated": again}))


if __name__ == "__main__":
    main()
