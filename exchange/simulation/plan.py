"""What kind of run a seed makes: how large, how rough, and how the processes are set."""

from dataclasses import dataclass
from random import Random

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Drawn from the seed before anything happens.

    `intensity` scales the faults of single calls, `disturbance_s` is the mean time between two things that
    are done to a process. `snapshot_events` are between two milestones.
    """

    commands: int
    traders: int
    intakes: int
    intensity: float
    disturbance_s: float
    lease_ms: int
    snapshot_events: int
    answer_deadline_s: float
    has_archive: bool
    has_wrong_clocks: bool

    @classmethod
    def draw(cls, random: Random, commands: int) -> "Plan":
        """Return the plan of a run with so many commands of clients."""
        return cls(
            commands=commands,
            traders=random.randint(4, 6),
            intakes=random.choice((1, 1, 2)),
            intensity=random.choice((0.0, 0.3, 1.0, 1.0, 2.0)),
            disturbance_s=random.choice((1.0, 2.0, 4.0)),
            lease_ms=random.choice((300, 1_000, 3_000)),
            snapshot_events=random.choice((40, 100, 200)),
            answer_deadline_s=random.choice((1.0, 10.0)),
            has_archive=random.random() < 0.25,
            has_wrong_clocks=random.random() < 0.25,
        )

    def skew_ns(self, random: Random) -> int:
        """Return how far a process's clock is off: a little, or, where they are wrong, up to an hour."""
        most_ns = 3_600 * NS_PER_S if self.has_wrong_clocks and random.random() < 0.3 else NS_PER_S // 50
        return random.randint(-most_ns, most_ns)
