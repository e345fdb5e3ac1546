#!/usr/bin/env python3
"""The benchmark's report: ratios, means, what a failure does to them, and the chart's geometry.

usage: tests/bench/test_report.py        no machine is started
"""
import os
import sys
import unittest
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import chart  # noqa: E402
import disks as d  # noqa: E402
import machines as m  # noqa: E402
import workloads as w  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def results():
    r = w.Results(["hash", "perl", "one-thread", "two-threads"], {m.TRANSLATOR: [], m.QEMU: []})
    for name, native, bailey, qemu in (("hash", [1, 2, 1], [2, 8, 4], [8, 16, 16]), ("perl", [1, 1, 1], [8, 2, 1], [4, 4, 4]),
                                       ("one-thread", [6, 6, 6], [12, 12, 12], [6, 6, 6]),
                                       ("two-threads", [3, 3, 3], [8, 8, 8], [3, 3, 3])):
        r.native[name], r.seconds[m.TRANSLATOR][name], r.seconds[m.QEMU][name] = native, bailey, qemu
    return r


def cells(text, title):
    row = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [c.strip() for c in row.strip("|").split("|")]


class Report(unittest.TestCase):
    def test_ratios_are_taken_run_by_run(self):
        self.assertEqual(cells(w.table(results()), "hash")[1:],
                         ["1.000", "2.00 / 4.00 / 4.00", "8.00 / 8.00 / 16.0", "2.00 / 4.00 / 4.00"])

    def test_mean_is_geometric_and_counts_the_parallel_work_once(self):
        # Run by run: (2 * 8 * 8/3), (4 * 2 * 8/3), (4 * 1 * 8/3), the cube root of each.
        want = m.spread([(x * 8 / 3) ** (1 / 3) for x in (16, 8, 4)])
        self.assertEqual(cells(w.table(results()), "**geometric mean**")[2], want)

    def test_a_failure_is_shown_and_left_out_of_every_mean(self):
        r = results()
        r.seconds[m.QEMU]["perl"].pop()
        text = w.table(r)
        self.assertEqual(cells(text, "Perl")[3:], ["**failed**", "—"])
        self.assertEqual(cells(text, "**geometric mean**")[2], m.spread([(x * 8 / 3) ** .5 for x in (2, 4, 4)]))

    def test_speed_up(self):
        text = w.speed_up(results())
        self.assertEqual(cells(text, "native")[1], "2.00 / 2.00 / 2.00")
        self.assertEqual(cells(text, m.TRANSLATOR)[1], "1.50 / 1.50 / 1.50")

    def test_a_line_of_another_workload_or_of_a_failure_is_no_time(self):
        self.assertEqual(w.parse("hash", "x\nhash 12 ab\n"), (12, "ab"))
        for text in ("sort 12 ab\n", "hash failed b\n", "hash 12\n", "rehash 12 ab\n"):
            with self.assertRaises(w.Failure):
                w.parse("hash", text)


def disk_results():
    one, two = ("virtio", "raw"), ("IDE", "qcow2")
    r = d.Results([m.TRANSLATOR, m.QEMU], ["read-1m", "flush-4k"], [one, two])
    for disk, access, bailey, qemu in ((one, "read-1m", [4e6, 6e6, 9e6], [2e6, 6e6, 3e6]), (one, "flush-4k", [1e6, 2e6, 1e6], [2e6, 4e6, 3e6]),
                                       (two, "read-1m", [8e6, 1e6, 1e6], [4e6, 4e6, 4e6]), (two, "flush-4k", [1e6, 1e6], [9e6, 9e6, 9e6])):
        r.speeds[m.TRANSLATOR][disk, access], r.speeds[m.QEMU][disk, access] = bailey, qemu
    return r


class Disks(unittest.TestCase):
    def test_above_1_bailey_is_faster_run_by_run(self):
        row = next(x for x in d.table(disk_results()).splitlines() if x.startswith("| virtio/raw | read 1 MiB |"))
        self.assertEqual([c.strip() for c in row.strip("|").split("|")][2:],
                         ["4.00 / 6.00 / 9.00", "2.00 / 3.00 / 6.00", "1.00 / 2.00 / 3.00"])

    def test_slower_is_what_loses_every_run_and_a_failure_is_no_figure(self):
        self.assertEqual(d.slower(disk_results()), ["virtio/raw, write 4 KiB, flush: 0.33 / 0.50 / 0.50"])

    def test_a_line_of_another_access_or_of_a_failure_is_no_figure(self):
        self.assertEqual(d.parse("read-4k", "read-4k 2000000000 8192 2\n"), 4096)
        for text in ("read-4k-8 1 4096 1\n", "read-4k failed: read at 0: x\n", "read-4k 1 0 0\n", "read-4k 0 4096 1\n"):
            with self.assertRaises(d.Failure):
                d.parse("read-4k", text)

    def test_labels_fit_the_chart(self):
        for access in d.ACCESSES:
            self.assertLessEqual(7.5 * len(d.label(access)), chart.LEFT - 8, access)


class Chart(unittest.TestCase):
    def bars(self, **values):
        svg = chart.bars("a < b", list(values), {"one": {k: (v / 2, v, v * 2) for k, v in values.items()}})
        boxes = [e for e in ElementTree.fromstring(svg).iter(SVG + "rect")][1:]  # the first is the legend's
        return [(float(b.get("x")), float(b.get("width"))) for b in boxes]

    def test_equal_factors_are_equally_long(self):
        (_, two), (_, four), (_, sixteen) = self.bars(a=2, b=4, c=16)
        self.assertAlmostEqual(four, 2 * two, delta=.3)
        self.assertAlmostEqual(sixteen, 4 * two, delta=.6)

    def test_every_label_has_room_and_every_figure_is_plain(self):
        names = list(w.TITLES.values())
        root = ElementTree.fromstring(chart.bars("t", names, {"one": {n: (100, 134, 150) for n in names}}))
        texts = list(root.iter(SVG + "text"))
        for text in (t for t in texts if t.get("text-anchor") == "end"):
            self.assertGreater(float(text.get("x")), 7.5 * len(text.text), text.text)
        self.assertEqual({t.text for t in texts if t.get("class") == "value"}, {"134"})

    def test_what_is_faster_than_native_goes_to_the_left_of_1(self):
        (one, _), (half, width) = self.bars(a=2, b=.5)
        self.assertAlmostEqual(half + width, one, delta=.2)


unittest.main()
