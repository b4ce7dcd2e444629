"""Watch a rule sample by sample: the verdict comes as soon as nothing can change it.

A button is pressed; the machine must stand still within five samples. Its brake is too weak, and the monitor
knows before the time is up.
"""

from cadenza import stl

RULE = stl.parse("button > 0.5 -> F[0,5] (speed < 0.05)", signals=["button", "speed"])


def main() -> None:
    # A machine that loses at most a tenth of its speed in a sample can be bounded; this one never exceeds 2 m/s.
    monitor = stl.Monitor(RULE, at="start", interval=True, ranges={"button": (0.0, 1.0), "speed": (0.0, 2.0)})
    speed = 1.0
    for step in range(8):
        verdict = monitor.update([1.0, speed])
        if verdict.closed:
            print(f"sample {step}: closed with {verdict.closed.robustness:+.2f}")
            break
        print(f"sample {step}: between {verdict.pending.lo:+.2f} and {verdict.pending.hi:+.2f}")
        speed *= 0.7


if __name__ == "__main__":
    main()
