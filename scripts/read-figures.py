"""Reads figures in the text format of Prometheus from standard input, as Prometheus does, and writes them as JSON.

Complains of families without a type or help, of names that break the rules (https://prometheus.io/docs/practices/naming/),
and of histograms that are none. Needs prometheus-client (scripts/deps test).
"""

import json
import re
import sys

from prometheus_client.parser import text_string_to_metric_families

samples, types, complaints = {}, {}, []
for family in text_string_to_metric_families(sys.stdin.read()):
    if family.name in types:
        complaints.append(f"{family.name} is there twice")
    types[family.name] = family.type
    if family.type not in ("counter", "gauge", "histogram"):
        complaints.append(f"{family.name} has no type")
    if not family.documentation:
        complaints.append(f"{family.name} has no help")
    if not re.fullmatch(r"(coffer|process)_[a-z][a-z_]*", family.name):
        complaints.append(f"{family.name} is no name for a figure")
    if re.search(r"_(ms|millis|kib|mib|kb|mb|percent|minutes)(_|$)", family.name):
        complaints.append(f"{family.name} is not in a base unit")
    if not family.samples:
        complaints.append(f"{family.name} has no figures")
    buckets = {}
    for sample in family.samples:
        if family.type == "counter" and not sample.name.endswith("_total"):
            complaints.append(f"{sample.name} counts and does not say so")
        labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        name = f"{sample.name}{{{labels}}}" if labels else sample.name
        if name in samples:
            complaints.append(f"{name} is there twice")
        samples[name] = sample.value
        if sample.name.endswith("_bucket"):
            others = tuple((key, value) for key, value in sorted(sample.labels.items()) if key != "le")
            buckets.setdefault(others, []).append((float(sample.labels["le"]), sample.value))
    for others, classes in buckets.items():
        bounds, counts = zip(*classes)
        if list(bounds) != sorted(set(bounds)) or bounds[-1] != float("inf"):
            complaints.append(f"{family.name} {others}: bounds do not rise to infinity")
        if list(counts) != sorted(counts):
            complaints.append(f"{family.name} {others}: classes do not count those below")
        labels = ",".join(f"{key}={value}" for key, value in others)
        total = samples.get(f"{family.name}_count{{{labels}}}" if labels else f"{family.name}_count")
        if total != counts[-1]:
            complaints.append(f"{family.name} {others}: {counts[-1]} in all classes, {total} in all")
json.dump({"samples": samples, "types": types, "complaints": complaints}, sys.stdout, indent=1)
