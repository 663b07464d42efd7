"""Random formulas of one variable, as elementwise operations of torch, of which any part can stand for one function."""

import itertools
import random

import torch
import torch.nn.functional as F

UNARY = {
    "exp": torch.exp,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "abs": torch.abs,
    "neg": torch.neg,
    "relu": F.relu,
    "softplus": F.softplus,
    "log1p_exp": lambda x: torch.log1p(torch.exp(x)),
    "square": lambda x: x * x,
    "sin": torch.sin,
    "half": lambda x: x / 2,
    "double": lambda x: 2 * x,
    "add one": lambda x: x + 1,
    "one less": lambda x: 1 - x,
    "leaky": lambda x: torch.max(x, 0.1 * x),
    "clamp to 3": lambda x: x.clamp(max=3),
}
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "where": lambda a, b: torch.where(a > 0, a, b),
    "mask": lambda a, b: a * (b > 0).to(a),
}
HALF_LINE = torch.logspace(-2, 1.2, 40, dtype=torch.float64)
LINE = torch.cat([-HALF_LINE.flip(0), HALF_LINE])


class Formula:
    """Steps ``(operation, operands)`` in order; step 0 is the variable. A window of it, ``(source, end)``, is a function."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, x, windows=(), wrap=None):
        """Compute the last step; each window as ``wrap(its function)`` of its source."""
        return self._value(len(self.steps) - 1, {0: x}, {end: source for source, end in windows}, wrap)

    def __str__(self):
        return "; ".join(f"{i} = {name}{operands}" for i, (name, operands) in enumerate(self.steps))

    def _value(self, step, values, windows, wrap):
        if step not in values:
            name, operands = self.steps[step]
            if step in windows:
                values[step] = wrap(self.function(windows[step], step))(self._value(windows[step], values, windows, wrap))
            else:
                values[step] = (UNARY | BINARY)[name](*(self._value(o, values, windows, wrap) for o in operands))
        return values[step]

    def function(self, source, end):
        return lambda v: self._value(end, {source: v}, {}, None)

    def _inside(self, source, end):
        """The steps from ``source`` to ``end``; None if one needs the variable by another way."""
        inside, left = set(), [end]
        while left:
            step = left.pop()
            if step == 0 and source != 0:
                return None
            if step != source and step not in inside:
                inside.add(step)
                left += self.steps[step][1]
        return inside

    def windows(self):
        """List every part that is a function of one value, none of its steps used elsewhere, and that rectifies."""
        found = []
        for end in range(1, len(self.steps)):
            for source in range(end):
                inside = self._inside(source, end)
                if inside is None or any(self._edges(step) & (inside - {end}) for step in {*range(len(self.steps))} - inside):
                    continue
                if rectifies(self.function(source, end)):
                    found.append((source, end, frozenset(inside)))
        return found

    def _edges(self, step):
        name, operands = self.steps[step]
        return {*(operands[:1] if name == "mask" else operands)}

    def choices(self, count):
        """Give every choice of ``count`` windows without a common step."""
        for windows in itertools.combinations(self.windows(), count):
            if len(frozenset().union(*(inside for *_, inside in windows))) == sum(len(inside) for *_, inside in windows):
                yield [(source, end) for source, end, _ in windows]


def rectifies(f):
    """Tell whether ``f`` changes much more on one side of zero, and runs one way wherever it is positive."""
    with torch.enable_grad():
        x = LINE.clone().requires_grad_()
        y = f(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    y, slope = y.detach(), slope[y > 0]
    if not (y.isfinite().all() and slope.isfinite().all() and len(slope)):
        return False
    middle = y[len(y) // 2]
    down, up = sorted(((y[0] - middle).abs(), (y[-1] - middle).abs()))
    return bool(down < 0.5 * up and ((slope >= -1e-9).all() or (slope <= 1e-9).all()))


def random_formula(seed):
    """A formula of depth one to four. Every other product is of a value and a gate made of it, as in activations."""
    rng, steps, places = random.Random(seed), [("x", ())], {}

    def step(name, *operands):
        if (name, operands) not in places:
            places[name, operands] = len(steps)
            steps.append((name, operands))
        return places[name, operands]

    def grow(depth):
        if depth == 0:
            return 0
        one = grow(depth - 1)
        if rng.random() < 0.5:
            return step(rng.choice(list(UNARY)), one)
        other = grow(rng.randrange(depth)) if rng.random() < 0.5 else step(rng.choice(list(UNARY)), one)
        return step(rng.choice(list(BINARY)), *rng.sample([one, other], 2))

    last = grow(rng.randint(1, 4))
    return Formula(steps[: last + 1])
