# infer: lists of tensors and tensors of texts, in and out, with ONNX's own test data.
CASES=${MOPT_ONNX_DATA:-/usr/share/libonnx-testdata/data}/node

# a list of three tensors and one behind it
c=$CASES/test_sequence_insert_at_back
expect 0 "$MOPT" infer "$c/model.onnx" --input "sequence=$c/test_data_set_0/input_0.pb" \
    --input "tensor=$c/test_data_set_0/input_1.pb" --output output_sequence=y.npy
[ -s y.3.npy ] || fail "there is no fourth tensor"
[ ! -e y.4.npy ] || fail "there is a fifth tensor"
expect 2 "$MOPT" infer "$c/model.onnx" --input sequence=y.0.npy --input "tensor=$c/test_data_set_0/input_1.pb" \
    --output output_sequence=z.npy
says "a list of tensors end in .pb"

# texts
c=$CASES/test_strnormalizer_export_monday_casesensintive_upper
expect 0 "$MOPT" infer "$c/model.onnx" --input "x=$c/test_data_set_0/input_0.pb" --output y=y.pb
for word in TUESDAY WEDNESDAY THURSDAY; do
    grep -q "$word" y.pb || fail "$word is not in the output"
done
! grep -qi monday y.pb || fail "a stop word is in the output"
expect 0 "$MOPT" infer "$c/model.onnx" --input "x=$c/test_data_set_0/input_0.pb" --output y=texts.npy
"$MOPT_PYTHON" -c 'import numpy, sys; sys.exit(numpy.load("texts.npy").ravel().tolist() != ["TUESDAY", "WEDNESDAY", "THURSDAY"])' ||
    fail "numpy reads other texts"
