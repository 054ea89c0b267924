/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A memory protection key; says "none" before it is ready where the processor has none to give. */
#include "victim.h"

int main(int argc, char **argv)
{
	char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int key;

	victim_init(argc, argv);
	check(area != MAP_FAILED, "mmap");
	key = pkey_alloc(0, PKEY_DISABLE_WRITE);
	check(key > 0 || errno == ENOSPC || errno == ENOSYS || errno == EINVAL, "pkey_alloc");
	if (key > 0)
		must(pkey_mprotect(area, 4096, PROT_READ | PROT_WRITE, key));
	else
		victim_say("none");
	victim_ready();
	victim_wait();
	check(key < 0 || pkey_get(key) == PKEY_DISABLE_WRITE, "rights");
	victim_ok();
	return 0;
}
