"""Watch a rule sample by sample: it is known to be broken as soon as nothing can mend it.

A button is pressed; from the next sample on, and for five samples, the machine must be slower than 0.8 m/s.
Its brake is too weak, and the monitor knows four samples before the time is up.
"""

from cadenza import stl

RULE = stl.parse("button > 0.5 -> G[1,5] (speed < 0.8)", signals=["button", "speed"])


def main() -> None:
    # The button is 0 or 1 and the machine never exceeds 2 m/s: known ranges tighten the bounds.
    monitor = stl.Monitor(RULE, at="start", interval=True, ranges={"button": (0.0, 1.0), "speed": (0.0, 2.0)})
    speed = 1.0
    for step in range(6):
        verdict = monitor.update([1.0, speed])
        if verdict.closed:
            print(f"sample {step}: closed with {verdict.closed[1]:+.2f}")
        else:
            _, lo, hi = verdict.pending
            known = ", broken whatever comes" if hi < 0 else ""
            print(f"sample {step}: between {lo:+.2f} and {hi:+.2f}{known}")
        speed *= 0.9


if __name__ == "__main__":
    main()
