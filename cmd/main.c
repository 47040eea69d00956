/* main.c - the program. */
#include <stdio.h>

#include "mopt.h"

int main(void)
{
    printf("mopt %s\n", MOPT_VERSION);
    return 0;
}
