# SPDX-License-Identifier: Apache-2.0
"""Invented names, identifiers and numbers, split into two disjoint worlds.

Every invented string is hashed; one in eight belongs to the evaluation world, the rest to the training world. A generator of one
world throws away what belongs to the other, so that what the evaluation asks about was never seen in training, by construction.
Numbers of one or two digits are shared by both worlds: there are too few of them to divide.
"""
import random
import zlib

ONSETS = "b bl br c ch d dr f fl g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl st t th tr v w y z".split()
VOWELS = "a e i o u ai ea oo ou ie".split()
CODAS = ["", "", "", "", "n", "l", "r", "s", "m", "k", "nd", "rt", "x", "th"]
FIRST_NAMES = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Karin Leo Maria Nils Olga Paul Rosa Simon Tina Viktor Lena Marco Sofia "
    "Ahmed Fatima Wei Yuki Priya Omar Chen Aisha Diego Lucia Ivan Nadia"
).split()
CITIES = (
    "Berlin Paris London Madrid Rome Vienna Oslo Stockholm Helsinki Warsaw Prague Lisbon Dublin Athens Zurich Geneva Hamburg Munich "
    "Cologne Amsterdam Brussels Tokyo Osaka Seoul Beijing Shanghai Delhi Mumbai Sydney Melbourne Toronto Montreal Chicago Boston "
    "Denver Seattle Austin Miami Cairo Nairobi Lagos Lima Bogota Santiago Istanbul Dubai Bangkok Hanoi Jakarta Manila Singapore"
).split() + ["New York", "San Francisco", "Hong Kong", "Buenos Aires", "Cape Town", "Mexico City"]


def is_held_out(text):
    return zlib.crc32(str(text).encode()) % 8 == 0


class World:
    """A source of random things. `held_out` picks the world: False for training, True for evaluation."""

    def __init__(self, seed, held_out=False):
        self.rng = random.Random(seed)
        self.held_out = held_out

    def _ours(self, draw):
        while True:
            value = draw()
            if is_held_out(value) == self.held_out:
                return value

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, options):
        return options[int(self.rng.random() * len(options))]

    def sample(self, options, count):
        return self.rng.sample(options, min(count, len(options)))

    def shuffled(self, options):
        options = list(options)
        self.rng.shuffle(options)
        return options

    def _syllables(self, least, most):
        count = self.rng.randint(least, most)
        parts = [self.pick(ONSETS) + self.pick(VOWELS) for _ in range(count)]
        return "".join(parts) + self.pick(CODAS)

    def word(self):
        """A lower-case invented word."""
        return self._ours(lambda: self._syllables(1, 3))

    def name(self):
        """A capitalised invented name of a person or place."""
        return self._ours(lambda: self._syllables(1, 4).capitalize())

    def person(self):
        if not self.held_out and self.chance(0.15):
            return self.pick(FIRST_NAMES)
        return f"{self.name()} {self.name()}" if self.chance(0.35) else self.name()

    def city(self):
        if not self.held_out and self.chance(0.35):
            return self.pick(CITIES)
        return f"{self.name()} {self.name()}" if self.chance(0.12) else self.name()

    def integer(self, least_digits=1, most_digits=5):
        """A whole number. The evaluation world's have at least three digits."""
        if self.held_out:
            least_digits, most_digits = max(3, least_digits), max(3, most_digits)

        def draw():
            digits = self.rng.randint(least_digits, most_digits)
            return self.rng.randint(10 ** (digits - 1), 10**digits - 1)

        if most_digits < 3:
            return draw()
        while True:
            value = draw()
            if value < 100 or is_held_out(value) == self.held_out:
                return value

    def decimal(self):
        value = self._ours(lambda: f"{self.rng.randint(0, 999)}.{self.rng.randint(1, 99):02d}".rstrip("0"))
        return float(value)

    def number(self):
        return self.decimal() if self.chance(0.25) else self.integer()

    def identifier(self):
        """What a record is called: a number, or letters and digits such as TK-4821 or b7k2."""

        def draw():
            letters = "".join(self.pick("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(self.rng.randint(1, 3)))
            digits = str(self.rng.randint(10, 99999))
            form = self.rng.random()
            if form < 0.4:
                return digits if len(digits) > 2 else digits + "01"
            return letters + ("-" if form < 0.75 else "") + digits

        return self._ours(draw)

    def clock(self):
        return f"{self.rng.randint(0, 23):02d}:{self.rng.randint(0, 59):02d}"

    def date(self):
        return f"{self.rng.randint(2019, 2039)}-{self.rng.randint(1, 12):02d}-{self.rng.randint(1, 28):02d}"


def show(value):
    """A number as people write it: at most four decimals, no trailing zeros."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == int(value) and abs(value) < 1e12:
        return str(int(value))
    return f"{value:.4f}".rstrip("0").rstrip(".")
