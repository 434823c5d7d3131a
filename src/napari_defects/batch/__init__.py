"""Many images: analysed in parallel, each in its own folder, with one summary, joined tables and a report.

::

    OUT/NAME/...                               what `analyze` writes; complete as soon as it is there
    OUT/summary.csv                            one row an image: done, kept or failed, why, how many
    OUT/counts.csv                             all images pooled
    OUT/averages/                              class averages, members from many images
    OUT/tables/defects/image=NAME/*.parquet    a partitioned dataset of every table
    OUT/report.html                            all of it to read, in one file

- ``work``: one file, analysed into its folder.
- ``runs``: many files, on the processes of a dask cluster.
- ``watching``: files as they appear.
- ``averaging``: class averages over all images.
- ``datasets``: what there is when they are done.
- ``report``: the same to read.
"""

from .averaging import average_dataset as average_dataset
from .datasets import Dataset as Dataset
from .runs import run_batch as run_batch
from .watching import watch as watch
