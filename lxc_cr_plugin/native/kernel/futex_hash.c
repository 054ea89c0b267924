/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "futex_hash.h"

#include <linux/btf.h>

void kernel_futex_locate(const struct btf *btf, struct kernel_futex_layout *ret)
{
	uint32_t id = btf_find(btf, BTF_KIND_STRUCT, "futex_private_hash");
	struct btf_place mask, custom;

	*ret = (struct kernel_futex_layout){0};
	if (!id || !btf_locate(btf, id, "hash_mask", &mask) ||
	    !btf_locate(btf, id, "custom", &custom) || mask.size != sizeof(uint32_t) ||
	    custom.size != 1 || custom.bits)
		return;
	*ret = (struct kernel_futex_layout){true, mask.offset, custom.offset};
}

struct cr_error *kernel_futex_read(const struct kernel_futex_layout *layout,
				   struct kernel_peek *peek, uint64_t address,
				   struct kernel_futex_hash *ret)
{
	uint32_t mask;
	uint8_t custom;

	*ret = (struct kernel_futex_hash){0};
	if (!address || !layout->known)
		return NULL;
	TRY(kernel_peek(peek, address + layout->mask, &mask, sizeof(mask)));
	TRY(kernel_peek(peek, address + layout->custom, &custom, sizeof(custom)));
	ret->custom = custom;
	ret->slots = mask ? mask + 1 : 0;
	return NULL;
}
