"""The books of a soak: what was counted, how long it took, what went wrong, and which of our own faults
excuses it. All of it is bounded however long the soak lasts."""
import collections
import math
import os
import time

EVENTS_MAX = 2000
SHAPES_MAX = 200
GRACE_SECONDS = 20 # of the site
NOTICED_SECONDS = 3.0 * float(os.environ.get("SPEC_PATIENCE", 1))
BUCKETS_PER_E = 20  # of a histogram: each 5 % wide

# What our faults may cost, and nothing else may.
WORKER, ORIGIN, UPGRADE = "worker killed", "origin killed", "upgrade"
STAYED = "tunnel that could not move"  # its worker looped until the program that would take it had left, too


class Histogram:
    def __init__(self):
        self.buckets, self.count, self.max = collections.Counter(), 0, 0.0

    def add(self, seconds):
        self.buckets[round(math.log(max(seconds, 1e-6)) * BUCKETS_PER_E)] += 1
        self.count += 1
        self.max = max(self.max, seconds)

    def quantile(self, share):
        left = share * self.count
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return math.exp(bucket / BUCKETS_PER_E)
        return self.max


class Event:
    """A fault that excuses failures between `begun` and `ended` (infinite while it lasts)."""

    def __init__(self, cause, pid):
        self.cause, self.pid, self.begun, self.ended = cause, pid, time.monotonic(), math.inf

    def end(self, later=0.0):
        self.ended = time.monotonic() + later


class Violation(Exception):
    pass


class Books:
    def __init__(self):
        self.began = time.monotonic()
        self.answered = collections.Counter()
        self.latency = collections.defaultdict(Histogram)
        self.failed = collections.Counter()
        self.faults = collections.Counter()
        self.outcomes = collections.Counter()
        self.durations = collections.defaultdict(Histogram)
        self.phase, self.phases = "", collections.defaultdict(Histogram)  # latencies of small requests
        self.events = collections.deque(maxlen=EVENTS_MAX)
        self.killed = collections.OrderedDict()  # pid -> None
        self.shapes = collections.Counter()
        self.violations, self.first = 0, None

    def success(self, kind, seconds, small=False):
        self.answered[kind] += 1
        self.latency[kind].add(seconds)
        if small:
            self.phases[self.phase].add(seconds)

    def event(self, cause, pid=None):
        event = Event(cause, pid)
        self.events.append(event)
        if pid and cause == WORKER:
            self.killed[pid] = None
            while len(self.killed) > EVENTS_MAX:
                self.killed.popitem(last=False)
        return event

    def excuse(self, causes, begun, pid=None):
        """The fault that excuses what began then and has just failed: the death of the worker that it was
        on, where that is known; else what has been going on between then and now, and is no longer over
        than it takes to notice."""
        if WORKER in causes and pid in self.killed:
            return WORKER
        noticed = time.monotonic() - NOTICED_SECONDS
        for event in reversed(self.events):
            if event.cause in causes and event.ended >= max(begun, noticed) and \
                    not (pid and event.cause == WORKER):
                return event.cause
        return None

    def failure(self, kind, what, causes, begun, pid=None, more=""):
        """Something failed: a count if a fault of ours explains it, else a violation."""
        cause = self.excuse(causes, begun, pid)
        if cause:
            self.failed["%s: %s (%s)" % (kind, what, cause)] += 1
        else:
            self.violation("%s: %s, and no fault explains it (worker %s; %s)" % (kind, what, pid or "unknown", more))

    def violation(self, what):
        self.violations += 1
        text = "at %.1f s: %s" % (time.monotonic() - self.began, what)
        print("VIOLATION " + text, flush=True)
        if not self.first:
            self.first = text

    def shape(self, text):
        """Counts a line of the log without its numbers."""
        if text in self.shapes or len(self.shapes) < SHAPES_MAX:
            self.shapes[text] += 1
