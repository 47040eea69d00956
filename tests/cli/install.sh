# make install, and the program in mopt.h's opening comment built against what was installed.
expect 0 make -s -C "$ROOT" install DESTDIR="$PWD/inst" PREFIX=/usr
[ -x inst/usr/bin/mopt ] && [ -e inst/usr/lib/libmopt.so ] && [ -s inst/usr/share/man/man1/mopt.1 ] || fail "something is not installed"
{
    printf '#include <stdio.h>\n#include <mopt.h>\nint main(void)\n{\n'
    sed -n '2,/mopt_close(ctx);/s/^ \*//p' inst/usr/include/mopt.h | sed -n '/mopt_open/,$p'
    printf '    return 0;\n}\n'
} > example.c
grep -q mopt_apply example.c || fail "the header's example was not found"
expect 0 "$MOPT" create mlp --layers 784,16,10 --input 1x28x28 -o in.onnx
PKG_CONFIG_LIBDIR="$PWD/inst/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$PWD/inst" pkg-config --cflags --libs mopt > flags
expect 0 cc -std=c11 -Wall -Werror example.c -o shared $(cat flags)
expect 0 env LD_LIBRARY_PATH="$PWD/inst/usr/lib" ./shared
[ -s out.onnx ] || fail "the example wrote no file: $(cat err)"
for std in c11 c17; do
    expect 0 cc -std=$std -Wall -Wextra -pedantic -Werror -fsyntax-only -x c inst/usr/include/mopt.h
done
for std in c++11 c++17; do
    expect 0 g++ -std=$std -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ inst/usr/include/mopt.h
done
# the library shows what mopt.h declares, and nothing else
nm -D --defined-only inst/usr/lib/libmopt.so | awk '{ print $3 }' | sort > shown
grep -v typedef inst/usr/include/mopt.h | grep -o 'mopt_[a-z_]*(' | tr -d '(' | sort -u > declared
while read -r name; do
    grep -qx "$name" shown || fail "$name is declared, but not in the library"
done < declared
! grep -v '^mopt_' shown | head -3 | grep . || fail "libmopt.so shows names that are not its interface"
