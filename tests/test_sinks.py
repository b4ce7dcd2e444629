"""cadenza.sinks: what is written, and how a resumed run continues it."""

import csv

import pytest

from cadenza.sinks import CsvSink, Sink, TensorBoardSink


def rows(path):
    with path.open(newline="") as file:
        return [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


def test_csv_keeps_every_bit(tmp_path):
    sink = CsvSink(tmp_path / "m.csv")
    values = [0.1, 1 / 3, 1e-300, -5.0]
    for i, v in enumerate(values):
        sink.scalar("a/b", v, i)
    sink.close()
    assert rows(tmp_path / "m.csv") == [(i, "a/b", v) for i, v in enumerate(values)]


def test_csv_continues_after_the_checkpoint(tmp_path):
    path = tmp_path / "m.csv"
    sink = CsvSink(path)
    for step in (10, 20, 30):
        sink.scalar("x", step, step)
    sink.flush()
    with path.open("a") as file:
        file.write("40,x")  # killed in the middle of a row
    again = CsvSink(path, resume_step=20)
    again.scalar("x", -1, 30)
    again.close()
    assert rows(path) == [(10, "x", 10), (20, "x", 20), (30, "x", -1)]
    CsvSink(path).close()
    assert rows(path) == []


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path)
    for step in (1, 2, 3):
        sink.scalar("train/x", step * 0.5, step)
    sink.close()
    again = TensorBoardSink(tmp_path, resume_step=2)
    again.scalar("train/x", 9.0, 3)
    again.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/x")] == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_a_sink_needs_only_scalar():
    class Mine(Sink):
        def scalar(self, name, value, step):
            self.got = (name, value, step)

    sink = Mine()
    sink.scalar("a", 1.0, 2)
    sink.flush()
    sink.close()
    assert sink.got == ("a", 1.0, 2)
    with pytest.raises(TypeError):
        Sink()  # pyright: ignore
