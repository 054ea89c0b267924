/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A key that is there for the kernel alone; when told to go on, it is as before. */
#include <linux/keyctl.h>
#include <sys/syscall.h>

#include "victim.h"

int main(int argc, char **argv)
{
	long key;

	victim_init(argc, argv);
	must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
	key = must(syscall(SYS_add_key, "logon", "victim:secret", "content", 7,
			   KEY_SPEC_SESSION_KEYRING));
	victim_ready();
	victim_wait();
	check(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "logon", "victim:secret",
		      0) == key,
	      "the key is lost");
	victim_ok();
	return 0;
}
