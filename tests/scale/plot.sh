#!/bin/sh
# The drawing in the documentation is made from the results beside it.
command -v python3 >/dev/null || { echo "python3 is not here"; exit 77; }
docs=${srcdir:-.}/../../docs/internals
python3 "${srcdir:-.}/plot" "$docs/scale-results.json" plot-test.svg && cmp plot-test.svg "$docs/scale.svg"
r=$?
rm -f plot-test.svg
exit $r
