"""A made-up team and the jobs that it posts in some days: light users, users who post many at once, users of whole hosts."""

import random
from dataclasses import dataclass, replace

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Person:
    """A user, and what is typical of the jobs."""

    name: str
    kind: str
    """``light``, ``bursty`` or ``heavy``."""
    weight: float


@dataclass(frozen=True)
class Posted:
    """A job that a person posts."""

    number: int
    person: Person
    at: float
    """Seconds from the beginning."""
    gpus: int
    seconds: float
    """How long it trains."""
    max_seconds: float
    """How long it may."""
    priority: str = "normal"


def team(size: int = 20) -> list[Person]:
    """Of twenty, twelve are light, five post many at once and three need whole hosts; smaller teams are alike."""
    heavy, bursty = max(1, size * 3 // 20), max(1, size // 4)
    kinds = ["heavy"] * heavy + ["bursty"] * bursty + ["light"] * (size - heavy - bursty)
    return [Person(f"{kind}-{number}", kind, weight=1.0 + number % 3 / 2) for number, kind in enumerate(kinds)]


def posts(people: list[Person], *, days: float, gpus: int, load: float, seed: int) -> list[Posted]:
    """What they post in so many days: by day more than by night, in all ``load`` times what ``gpus`` GPUs could do."""
    draw = random.Random(seed)
    drawn = [post for person in people for post in _of(person, days, draw)]
    factor = load * gpus * days * DAY / sum(post.gpus * post.seconds for post in drawn)
    drawn.sort(key=lambda post: (post.at, post.person.name))
    return [
        replace(post, number=number, seconds=post.seconds * factor, max_seconds=_limit(post.seconds * factor, draw))
        for number, post in enumerate(drawn)
    ]


def _of(person: Person, days: float, draw: random.Random) -> list[Posted]:
    found = []
    for day in range(max(1, round(days))):
        match person.kind:
            case "light":
                for _ in range(draw.choice([0, 1, 2, 3, 4])):
                    found.append(_post(person, _daytime(day, draw), draw.choice([1, 1, 1, 2]), draw.uniform(0.2, 1.5), draw))
            case "bursty":
                if draw.random() < 0.6:
                    at, gpus = _daytime(day, draw), draw.choice([1, 1, 2, 4])
                    found += [_post(person, at, gpus, draw.uniform(0.5, 2.5), draw) for _ in range(draw.randrange(15, 40))]
            case _:
                for _ in range(draw.randrange(2, 5)):
                    found.append(_post(person, _daytime(day, draw), draw.choice([4, 8, 8]), draw.uniform(3.0, 12.0), draw))
    return [post for post in found if post.at < days * DAY]


def _post(person: Person, at: float, gpus: int, hours: float, draw: random.Random) -> Posted:
    urgent = 0.04 if person.kind == "light" else 0.0
    priority = draw.choices(["high", "normal", "low"], [urgent, 0.8 - urgent, 0.2])[0]
    return Posted(0, person, at, gpus, hours * HOUR, 0.0, priority)


def _daytime(day: int, draw: random.Random) -> float:
    return day * DAY + min(23.9, max(0.0, draw.gauss(13.0, 3.5))) * HOUR


def _limit(seconds: float, draw: random.Random) -> float:
    """People ask for more time than they need, in whole hours."""
    return (1 + seconds * draw.uniform(1.1, 3.0) // HOUR) * HOUR
