"""Tests of what the benchmark's report computes. Run by spec/bench_spec.lua."""
import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import measure  # noqa: E402
import report  # noqa: E402


def row(costs, **more):
    """Of windows by round."""
    return {"windows": [{"round": number, "cpu_us": cost} | more for number, cost in costs.items()], "dropped": []}


class Pairs(unittest.TestCase):
    """A machine that gets slower from round to round: ours takes half of nginx's time in each."""

    def test_ratio_is_taken_within_rounds(self):
        rows = {"ours": row({1: 10, 2: 20, 3: 40}), "nginx": row({0: 10, 1: 20, 2: 40, 3: 80})}
        self.assertEqual("0.50", report.ratio(rows, "ours"))

    def test_no_common_round_gives_no_ratio(self):
        self.assertEqual("", report.ratio({"ours": row({0: 10}), "nginx": row({1: 10})}, "ours"))

    def test_hook_costs_are_taken_within_rounds(self):
        results = {"128 B": {"monolake-lua": row({0: 10, 1: 20, 2: 40})},
                   "Lua hook": {"monolake-lua": row({1: 21, 2: 41})}}
        self.assertEqual("- monolake-lua: +1.0 us", report.hook_costs(results))

    def test_a_proxy_with_time_left_is_marked(self):
        self.assertEqual("95 %", report.core(row({0: 1}, proxy_share=0.95, load_share=0.5)["windows"]))
        self.assertIn("†", report.core(row({0: 1}, proxy_share=0.6, load_share=1)["windows"]))


def process(name, cpu_ns, children_ns=0, parent=1):
    return measure.Process(name, parent, False, cpu_ns, children_ns)


class Used(unittest.TestCase):
    def test_short_lived_children_are_found_in_their_parent(self):
        used = measure.used_between({5: process("make", 1, 100)}, {5: process("make", 3, 700)})
        self.assertEqual({5: 602}, used)

    def test_what_a_child_had_used_before_is_no_news(self):
        before = {5: process("make", 1, 100), 6: process("cc", 400, parent=5)}
        used = measure.used_between(before, {5: process("make", 1, 700)})
        self.assertEqual({5: 200}, used)

    def test_nor_is_what_a_whole_branch_had_used(self):
        before = {5: process("bash", 1, 100), 6: process("make", 50, 20, parent=5), 7: process("cc", 400, parent=6)}
        self.assertEqual({5: 30}, measure.used_between(before, {5: process("bash", 1, 600)}))


if __name__ == "__main__":
    unittest.main()
