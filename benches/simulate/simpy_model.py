#!/usr/bin/env python3
"""The models of `cargo bench -p selvedge-sim`, in SimPy: requests per second of processor time.

usage: simpy_model.py one|five REQUESTS
"""

import random
import sys
import time

import simpy

TIERS, REPLICAS, SLOTS = 5, 3, 10
ATTEMPTS, LIMIT = 3, 200
ATTEMPT_TIMEOUT, CALL_TIMEOUT = 0.2, 1.0
WINDOW, MIN_CALLS, FAILURE_RATE, OPEN_FOR = 10.0, 20, 0.5, 5.0


def one(env, requests, done):
    """M/M/1 at 0.8."""
    server = simpy.Resource(env, 1)

    def request():
        with server.request() as turn:
            yield turn
            yield env.timeout(random.expovariate(1000.0))
        done.append(1)

    for _ in range(requests):
        yield env.timeout(random.expovariate(800.0))
        env.process(request())


class Breaker:
    """Opens when half of the calls of the last ten seconds failed; then lets one through."""

    def __init__(self):
        self.slices = {}
        self.open_until = 0.0

    def ready(self, now):
        return now >= self.open_until

    def settle(self, now, good):
        epoch = int(now)
        total, failed = self.slices.get(epoch, (0, 0))
        self.slices[epoch] = (total + 1, failed + (not good))
        for old in [at for at in self.slices if at <= epoch - WINDOW]:
            del self.slices[old]
        total = sum(one[0] for one in self.slices.values())
        failed = sum(one[1] for one in self.slices.values())
        if total >= MIN_CALLS and failed >= FAILURE_RATE * total:
            self.open_until = now + OPEN_FOR
            self.slices.clear()


class Way:
    """The way to one tier: breakers and pending attempts of its instances, and a limit."""

    def __init__(self):
        self.pending = [0] * REPLICAS
        self.breakers = [Breaker() for _ in range(REPLICAS)]
        self.in_flight = 0

    def pick(self, now):
        usable = [at for at in range(REPLICAS) if self.breakers[at].ready(now)]
        if not usable:
            return None
        if len(usable) == 1:
            return usable[0]
        return min(random.sample(usable, 2), key=self.pending.__getitem__)


def five(env, requests, done):
    """Five tiers of three instances; every way has a retry, breakers, a limit and two choices."""
    servers = [[simpy.Resource(env, SLOTS) for _ in range(REPLICAS)] for _ in range(TIERS)]
    # The gateway's way to the first tier, and each instance's way to the next.
    ways = [[Way()]] + [[Way() for _ in range(REPLICAS)] for _ in range(TIERS - 1)]

    def attempt(tier, replica):
        with servers[tier][replica].request() as turn:
            yield turn
            if tier == TIERS - 1 and random.random() < 0.01:
                return False
            yield env.timeout(random.expovariate(100.0))
        if tier + 1 < TIERS:
            return (yield env.process(call(tier + 1, replica)))
        return True

    def call(tier, origin):
        way = ways[tier][origin]
        ends = env.now + CALL_TIMEOUT
        for number in range(ATTEMPTS):
            replica = way.pick(env.now)
            if replica is None or way.in_flight >= LIMIT:
                return False
            way.in_flight += 1
            way.pending[replica] += 1
            work = env.process(attempt(tier, replica))
            limit = env.timeout(min(ATTEMPT_TIMEOUT, ends - env.now))
            yield work | limit
            good = work.processed and work.value
            way.in_flight -= 1
            way.pending[replica] -= 1
            way.breakers[replica].settle(env.now, good)
            if good:
                return True
            pause = random.random() * min(5.0, 0.05 * 2**number)
            if env.now + pause >= ends:
                return False
            yield env.timeout(pause)
        return False

    def request():
        yield env.process(call(0, 0))
        done.append(1)

    for _ in range(requests):
        yield env.timeout(random.expovariate(1500.0))
        env.process(request())


def main():
    model, requests = {"one": one, "five": five}[sys.argv[1]], int(sys.argv[2])
    random.seed(1)
    env, done = simpy.Environment(), []
    begun = time.process_time()
    env.process(model(env, requests, done))
    env.run()
    assert len(done) == requests
    print(requests / (time.process_time() - begun))


if __name__ == "__main__":
    main()
