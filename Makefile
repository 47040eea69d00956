# mopt: one Makefile, not recursive. Objects live in build/<configuration>/, so
# configurations never mix and need no clean.
#
#   SAN=address,undefined   sanitizers        CUDA=auto|0|1   the CUDA plug-in
#   DEBUG=1                 -O0               MPI=auto|0|1    the MPI plug-in
#   T=pattern               tests whose suite matches
#   V=1                     the commands in full

CC      ?= cc
CUDA    ?= auto
NVCC    ?= nvcc
SAN     ?=
DEBUG   ?= 0
V       ?= 0
PREFIX  ?= /usr/local
ARCH    := $(subst -pc-,-,$(shell $(CC) -dumpmachine 2>/dev/null))
OPENBLAS ?= /usr/lib/$(ARCH:x86_64-linux-gnu=x86_64-linux-gnu)/openblas-serial/libopenblas.a

HAVE_NVCC := $(shell command -v $(NVCC) 2>/dev/null)
ifeq ($(CUDA),auto)
  WITH_CUDA := $(if $(HAVE_NVCC),$(if $(wildcard kernels/cuda/*.cu),1,0),0)
else
  WITH_CUDA := $(CUDA)
endif
ifeq ($(WITH_CUDA)$(HAVE_NVCC),1)
  $(error CUDA=1, but nvcc was not found; set NVCC=/path/to/nvcc)
endif

# The MPI plug-in (docs/DISTRIBUTED.md): with the compiler wrapper of the MPI that is installed.
MPI     ?= auto
MPICC   ?= mpicc
HAVE_MPICC := $(shell command -v $(MPICC) 2>/dev/null)
ifeq ($(MPI),auto)
  WITH_MPI := $(if $(HAVE_MPICC),1,0)
else
  WITH_MPI := $(MPI)
endif
ifeq ($(WITH_MPI)$(HAVE_MPICC),1)
  $(error MPI=1, but mpicc was not found; install libopenmpi-dev and openmpi-bin, or set MPICC=/path/to/mpicc)
endif

comma := ,
CONFIG := cuda$(WITH_CUDA)$(if $(filter 0,$(WITH_MPI)),-nompi)$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(filter 1,$(DEBUG)),-debug)
B := build/$(CONFIG)
G := build/gen

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef \
        -Wwrite-strings -Wno-missing-field-initializers
ifdef CI
  WARN += -Werror
endif
OPT := $(if $(filter 1,$(DEBUG)),-O0,-O2)
CPPFLAGS += -I. -Ilib -I$(G) -D_GNU_SOURCE -DMOPT_WITH_CUDA=$(WITH_CUDA) -DMOPT_WITH_MPI=$(WITH_MPI)
CFLAGS += -std=c11 $(OPT) -g -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -fno-trapping-math $(WARN)
ifneq ($(SAN),)
  CFLAGS  += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
  LDFLAGS += -fsanitize=$(SAN)
endif
VERSION := $(shell sed -n 's/.*MOPT_VERSION "\(.*\)"/\1/p' lib/mopt.h)
# --wrap: OpenBLAS's scratch memory goes through kernels/cpu/blas_memory.c, which makes it safe in threads.
LIBS := $(OPENBLAS) -Wl,--wrap=blas_memory_alloc,--wrap=blas_memory_free,-u,__wrap_blas_memory_alloc -lprotobuf-c -lcjson -ljpeg -lpng -ltiff -lwebp -lopenjp2 -lpcre2-8 -lz -ldl -lpthread -lm

LIB_SRC := $(wildcard lib/*/*.c kernels/*.c kernels/cpu/*.c kernels/cuda/*.c kernels/comm/*.c formats/*.c)
LIB_SRC := $(sort $(LIB_SRC))
CMD_SRC := $(wildcard cmd/*.c)
TEST_SRC := $(wildcard tests/*/test_*.c tests/support/*.c)
PB_SRC := $(G)/onnx.pb-c.c

LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o) $(if $(wildcard formats/onnx.proto),$(B)/gen/onnx.pb-c.o)
CMD_OBJ := $(CMD_SRC:%.c=$(B)/%.o)
TEST_OBJ := $(TEST_SRC:%.c=$(B)/%.o) $(B)/gen/suites.o

# The CUDA backend is a plug-in that mopt loads at run time (docs/CUDA.md): machine code for Turing to Hopper, and
# PTX of the last for what comes after. The CUDA runtime is inside; cuBLAS is found beside the compiler's folder, and so
# is cuDNN, which is only loaded when a device is opened.
CUDA_ARCHS ?= 75 80 86 89 90
CUDA_PTX := $(lastword $(CUDA_ARCHS))
# -fmad=false: products and sums round as on the CPU; where one rounding is wanted the kernels say fmaf.
NVCCFLAGS += -std=c++20 --extended-lambda -O2 -fmad=false $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
             -gencode arch=compute_$(CUDA_PTX),code=compute_$(CUDA_PTX) -Xcompiler -fPIC,-fvisibility=hidden,-Wall
CUDA_LIB = $(patsubst %/bin/,%/lib64,$(dir $(realpath $(HAVE_NVCC))))
CU_SRC := $(wildcard kernels/cuda/*.cu)
CU_OBJ := $(CU_SRC:%.cu=$(B)/%.cu.o)
MPI_OBJ := $(B)/kernels/comm/mpi/mpi.o
MPI_PLUGIN := $(if $(filter 1,$(WITH_MPI)),$(B)/libmopt-mpi.so)
# NCCL comes with its header and library beside CUDA's.
CUDA_HOME = $(patsubst %/bin/,%,$(dir $(realpath $(HAVE_NVCC))))
WITH_NCCL := $(if $(filter 11,$(WITH_CUDA)$(WITH_MPI)),$(if $(wildcard $(CUDA_HOME)/include/nccl.h),1,0),0)
NCCL_OBJ := $(B)/kernels/comm/nccl/nccl.o
NCCL_PLUGIN := $(if $(filter 1,$(WITH_NCCL)),$(B)/libmopt-nccl.so)
PLUGIN := $(if $(filter 1,$(WITH_CUDA)),$(B)/libmopt-cuda.so) $(MPI_PLUGIN) $(NCCL_PLUGIN)

# What is made is said in a word; V=1 shows the commands.
say = $(if $(filter 1,$(V)),,@echo '  $1 $(@:$(B)/%=%)';)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

all: $(B)/mopt mopt $(PLUGIN) ## build the program and the library (default)

mopt: $(B)/mopt $(MPI_PLUGIN)
	@ln -sf $(B)/mopt mopt

$(G)/onnx.pb-c.c $(G)/onnx.pb-c.h &: formats/onnx.proto
	@mkdir -p $(G)
	$(call say,GEN )protoc-c --proto_path=formats --c_out=$(G) formats/onnx.proto

$(B)/gen/onnx.pb-c.o: $(G)/onnx.pb-c.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<

# -O2 of gcc 12 vectorizes next to nothing.
$(B)/kernels/cpu/%.o: CFLAGS += $(if $(filter 1,$(DEBUG)),,-O3)
# Loops over whole models.
$(B)/lib/passes/quantize_weights.o $(B)/lib/passes/quantize_fp16.o: CFLAGS += $(if $(filter 1,$(DEBUG)),,-O3)
# Kernels for one instruction set live in files named for it.
$(B)/%_avx2.o: CFLAGS += -mavx2 -mfma -ffp-contract=fast -O3
$(B)/%_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512 -ffp-contract=fast -O3
$(B)/%_vbmi.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -O3
$(B)/%_vnni.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -ffp-contract=fast -O3
$(B)/%_amx.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16 -O3

# Only formats/ knows the generated protobuf code. (A pattern rule without a recipe would add nothing.)
$(filter $(B)/formats/%,$(LIB_OBJ)): | $(G)/onnx.pb-c.h

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/libmopt.a: $(LIB_OBJ)
	@rm -f $@
	$(call say,AR  )ar rcs $@ $^

$(B)/libmopt.so: $(LIB_OBJ)
	$(call say,LINK)$(CC) $(LDFLAGS) -shared -Wl,--exclude-libs,ALL -Wl,-soname,libmopt.so.0 -o $@ $^ $(LIBS)

$(B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC)$(NVCC) -I. $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(B)/libmopt-cuda.so: $(CU_OBJ)
	$(call say,LINK)$(NVCC) -shared -o $@ $^ -lcublas -lcublasLt -Xlinker -z,defs,-rpath,$(CUDA_LIB)

# Sums of gradients are made here while a rank waits: -O3 for vectors.
$(MPI_OBJ): kernels/comm/mpi/mpi.c
	@mkdir -p $(@D)
	$(call say,CC)$(MPICC) -I. -D_GNU_SOURCE $(filter-out -fsanitize=%,$(CFLAGS)) -O3 -MMD -MP -c -o $@ $<

$(B)/libmopt-mpi.so: $(MPI_OBJ)
	$(call say,LINK)$(MPICC) $(filter-out -fsanitize=%,$(LDFLAGS)) -shared -o $@ $^

# The same kernels for a device that is the CPU, by the headers of tests/emulated/: what tests run where there is no card.
EMULATED := $(B)/libmopt-cuda-emulated.so
EMU_OBJ := $(CU_SRC:%.cu=$(B)/emulated/%.o) $(patsubst %.cpp,$(B)/emulated/%.o,$(wildcard tests/emulated/*.cpp))
EMU_FLAGS := -std=c++20 -Itests/emulated -I. $(OPT) -g -fPIC -fvisibility=hidden -ffp-contract=off -Wall
$(B)/emulated/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,C++)$(CXX) -x c++ $(EMU_FLAGS) -MMD -MP -c -o $@ $<
$(B)/emulated/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,C++)$(CXX) $(EMU_FLAGS) -MMD -MP -c -o $@ $<
$(EMULATED): $(EMU_OBJ)
	$(call say,LINK)$(CXX) -shared -o $@ $^ -Wl,-z,defs

$(NCCL_OBJ): kernels/comm/nccl/nccl.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -I. -isystem $(CUDA_HOME)/include -D_GNU_SOURCE $(filter-out -fsanitize=%,$(CFLAGS)) -MMD -MP -c -o $@ $<

$(B)/libmopt-nccl.so: $(NCCL_OBJ)
	$(call say,LINK)$(CC) $(filter-out -fsanitize=%,$(LDFLAGS)) -shared -o $@ $^ -L$(CUDA_LIB) -lnccl -lcudart \
	    -Wl,-z,defs,-rpath,$(CUDA_LIB)

$(B)/mopt: $(CMD_OBJ) $(B)/libmopt.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $(CMD_OBJ) $(B)/libmopt.a $(LIBS)

# Every tests/*/test_NAME.c gives `Suite *suite_NAME(void)`; this lists them.
TEST_NAMES := $(sort $(patsubst test_%,%,$(filter test_%,$(basename $(notdir $(TEST_SRC))))))
$(G)/suites.c: Makefile $(TEST_SRC)
	@mkdir -p $(G)
	@{ echo '#include <check.h>'; \
	   for t in $(TEST_NAMES); do echo "Suite *suite_$$t(void);"; done; \
	   echo 'const struct mo_suite { const char *name; Suite *(*make)(void); } mo_suites[] = {'; \
	   for t in $(TEST_NAMES); do echo "    { \"$$t\", suite_$$t },"; done; echo '    { 0, 0 } };'; } > $@
$(B)/gen/suites.o: $(G)/suites.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-missing-prototypes -c -o $@ $<
$(B)/check: $(TEST_OBJ) $(B)/libmopt.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $(TEST_OBJ) $(B)/libmopt.a $(LIBS) -lcheck -lsubunit -lrt

# The program with a malloc that can fail: tests/torture/torture.c.
$(B)/torture-main.o: cmd/main.c
	@mkdir -p $(@D)
	$(call say,CC  )$(CC) $(CPPFLAGS) $(CFLAGS) -Dmain=mopt_main -Wno-missing-prototypes -MMD -MP -c -o $@ $<
$(B)/torture: $(B)/tests/torture/torture.o $(B)/torture-main.o $(filter-out %/main.o,$(CMD_OBJ)) $(B)/libmopt.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

lib: $(B)/libmopt.a ## build the static library only

shared: $(B)/libmopt.so ## build the shared library

deps: ## install what building needs (Debian)
	@tools/deps.sh build

demo: ## install what is missing, build, and do the whole job on Fashion-MNIST
	@tools/deps.sh demo
	@$(MAKE) --no-print-directory -j$$(nproc) mopt
	@tools/demo.sh

check: ## install what tests need, build, lint, run every test
	@tools/deps.sh check
	@$(MAKE) --no-print-directory -j$$(nproc) all shared check-program
	@tests/lint.sh
	@tests/venv.sh $(VENV)
	@$(MAKE) --no-print-directory test

# By a name of its own: what deps.sh has just installed may change $(B), which this make has read already.
check-program: $(B)/check

# Python packages that tests compare with; nothing of them is part of mopt.
VENV := build/venv

test: $(B)/check $(B)/torture $(B)/mopt mopt $(PLUGIN) $(EMULATED) ## run the tests as built (T=pattern: matching suites only)
	@CK_TIMEOUT_MULTIPLIER=10 MOPT_BIN=$(abspath $(B)/mopt) MOPT_TORTURE=$(abspath $(B)/torture) MOPT_EMULATED=$(abspath $(EMULATED)) MOPT_PYTHON=$(abspath $(VENV))/bin/python MOPT_T='$(T)' $(B)/check

lint: ## the rules of docs/ARCHITECTURE.md that a script can read
	@tests/lint.sh

results: $(B)/mopt mopt ## every number of docs/RESULTS.md again (hours)
	@tests/bench/results.sh

bench: $(B)/mopt mopt ## speed beside PyTorch and ONNX Runtime (installs them into build/venv-bench)
	@tests/bench/bench.sh

bench-peers: $(B)/mopt mopt ## training and inference beside PyTorch and ONNX Runtime, in turn (ARGS='--nets mlp --seconds 0.1')
	@tests/bench/bench_peers.sh $(ARGS)

# Fuzzing: clang's libFuzzer, one program a target, in a build folder of its own.
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
TIME ?= 60
fuzz: ## fuzz the readers (T=target TIME=seconds)
	@tests/fuzz/run.sh "$(if $(T),$(T),$(FUZZ))" $(TIME)

# What run.sh builds with CC=clang SAN=fuzzer-no-link,address,undefined. Files that a target reads by path lie in memory.
$(B)/tests/fuzz/%.o: CPPFLAGS += -DFUZZ_IN_MEMORY
$(B)/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/memory_files.o $(B)/libmopt.a
	$(call say,LINK)$(CC) $(LDFLAGS) -fsanitize=fuzzer -Wl,--wrap=mo_blob_open -o $@ $^ $(LIBS)
fuzz-programs: $(FUZZ:%=$(B)/fuzz_%)
.PRECIOUS: $(B)/tests/fuzz/%.o

man: $(B)/mopt.1 ## the manual page, from the option tables
$(B)/mopt.1: $(B)/mopt tools/man.sh
	@tools/man.sh $(B)/mopt > $@

install: all shared man ## install below PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include \
	    $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(B)/mopt $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(B)/libmopt.a $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(B)/libmopt.so $(DESTDIR)$(PREFIX)/lib/libmopt.so.0
	ln -sf libmopt.so.0 $(DESTDIR)$(PREFIX)/lib/libmopt.so
	$(if $(strip $(PLUGIN)),install -m 755 $(PLUGIN) $(DESTDIR)$(PREFIX)/lib/)
	install -m 644 lib/mopt.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(B)/mopt.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LIBS)|' tools/mopt.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/mopt.pc

clean: ## remove everything built
	rm -rf build mopt

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

FUZZ_DEPS := $(wildcard $(B)/tests/fuzz/*.d)
.PHONY: all lib shared deps demo check check-program test lint results bench bench-peers fuzz fuzz-programs man install clean help

-include $(B)/tests/torture/torture.d $(B)/torture-main.d $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(TEST_OBJ:.o=.d) $(CU_OBJ:.o=.d) $(EMU_OBJ:.o=.d) $(MPI_OBJ:.o=.d) $(NCCL_OBJ:.o=.d) $(FUZZ_DEPS)
