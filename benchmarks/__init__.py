"""What an event costs: workpool beside a bare loop and beside the usual ways, measured in one run.

`python -m benchmarks` from the root of the repository, with the extra `workpool[bench]` installed. `subjects` holds
what is compared, `reference` the pool without its compiled twin, `workloads` what all are given to do, `measure` how a
figure is taken, `targets` what workpool should reach, `report` and `plot` the page.
"""
