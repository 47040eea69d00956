# Models that ask for too much or contradict themselves: refused with words, in a second, within 1 GB.
"$MOPT_PYTHON" "$ROOT/tests/cli/hostile.py" "$MOPT" || fail "hostile models"
