/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "header.h"

#include <string.h>

#include "../target/arch/x86_64.h"
#include "cpu.h"
#include "vdso.h"

enum { VERSION = 1 };

#define FORMAT "lxc-cr"

struct header {
	struct bytes format;
	uint32_t version;
	struct bytes machine;
	uint64_t vdso;
	struct bytes cpu;
	struct image_clocks clocks;
	struct list requires;	   /* struct required */
	struct list users, groups; /* struct id_range */
};

struct required {
	struct bytes name;
};

static const struct field required_fields[] = {
	FIELD_TEXT(struct required, name, 64, "kind that the reader must know"),
	FIELD_END,
};

static const struct field id_range_fields[] = {
	FIELD_UINT(struct id_range, inside, 0, UINT32_MAX, "first id in the container"),
	FIELD_UINT(struct id_range, outside, 0, UINT32_MAX, "the same on the host"),
	FIELD_UINT(struct id_range, count, 1, UINT32_MAX, "how many"),
	FIELD_END,
};

enum { MOST_RANGES = 340 }; /* UID_GID_MAP_MAX_EXTENTS */

/* Offsets may be as large as clocks; the kernel refuses what it cannot count. */
enum { LATEST = INT64_MAX / 4 };

static const struct field clock_fields[] = {
	FIELD_UINT(struct image_clocks, monotonic, 0, LATEST, "the host's CLOCK_MONOTONIC"),
	FIELD_UINT(struct image_clocks, boottime, 0, LATEST, "the host's CLOCK_BOOTTIME"),
	FIELD_UINT(struct image_clocks, realtime, 0, LATEST, "CLOCK_REALTIME"),
	FIELD_INT(struct image_clocks, monotonic_offset, -LATEST, LATEST,
		  "what the container's time namespace adds to CLOCK_MONOTONIC"),
	FIELD_INT(struct image_clocks, boottime_offset, -LATEST, LATEST, "and to CLOCK_BOOTTIME"),
	FIELD_TEXT(struct image_clocks, boot, 64, "the kernel's boot_id"),
	FIELD_END,
};

static const struct field header_fields[] = {
	FIELD_TEXT(struct header, format, 16, "lxc-cr"),
	FIELD_UINT(struct header, version, 1, UINT32_MAX, "of the format"),
	FIELD_TEXT(struct header, machine, 32, "architecture"),
	FIELD_UINT(struct header, vdso, 0, UINT64_MAX, "fingerprint of the kernel's vdso"),
	FIELD_TEXT(struct header, cpu, 8192, "features of the processor, as in /proc/cpuinfo"),
	FIELD_STRUCT(struct header, clocks, clock_fields, "T0, ns", .optional = true),
	FIELD_ROWS(struct header, requires, struct required, required_fields, 4096,
		   "kinds that the reader must know"),
	FIELD_ROWS(struct header, users, struct id_range, id_range_fields, MOST_RANGES,
		   "user ids of a user namespace; all ids in the image are the host's",
		   .optional = true),
	FIELD_ROWS(struct header, groups, struct id_range, id_range_fields, MOST_RANGES,
		   "its group ids", .optional = true),
	FIELD_END,
};

static struct bytes text_bytes(const char *text)
{
	return (struct bytes){.data = (uint8_t *)text, .len = strlen(text)};
}

static bool is_text(const struct bytes *bytes, const char *text)
{
	return bytes->len == strlen(text) && !memcmp(bytes->data, text, bytes->len);
}

static bool is_used(const struct image *image, const struct kind *kind)
{
	if (kind->scope == SCOPE_ZOMBIE)
		return image->zombies.count;
	if (kind->scope != SCOPE_OBJECT)
		return true;
	for_each (struct object *, object, &image->objects) {
		if (object->kind == kind)
			return true;
	}
	return false;
}

struct cr_error *header_write(struct image *image, struct record_writer *writer)
{
	struct header header = {
		.format = text_bytes(FORMAT),
		.version = VERSION,
		.machine = text_bytes(ARCH_NAME),
		.vdso = vdso_fingerprint(),
		.users = image->ids.users,
		.groups = image->ids.groups,
		.clocks = image->clocks,
	};
	char *features;

	TRY(cpu_features(image->pool, &features));
	header.cpu = text_bytes(features);

	for (unsigned int k = 0; k < kinds_count(); k++) {
		struct required *required;

		if (!is_used(image, kinds[k]))
			continue;
		required = list_append(image->pool, &header.requires, sizeof(*required));
		if (!required)
			return error_nomem();
		required->name = text_bytes(kinds[k]->name);
	}
	return record_put(writer, header_fields, &header);
}

static struct cr_error *check_requires(const struct header *header)
{
	const struct required *required = header->requires.items;

	for (size_t i = 0; i < header->requires.count; i++) {
		if (!kind_by_name((const char *)required[i].name.data))
			return error_remedy(
				error_new(CR_IMAGE,
					  "The image needs '%s', which this version lacks",
					  required[i].name.data),
				"Restart it with a newer lxc-cr");
	}
	return NULL;
}

struct cr_error *header_read(struct image *image, struct record_reader *reader)
{
	struct header header = {0};

	TRY(error_wrap(record_get(reader, header_fields, &header), "Bad header in state.cbor"));
	if (!is_text(&header.format, FORMAT))
		return error_new(CR_IMAGE, "state.cbor is not of lxc-cr");
	if (header.version != VERSION)
		return error_remedy(error_new(CR_IMAGE,
					      "The image has format version %u, this is %u",
					      header.version, VERSION),
				    "Restart it with a newer lxc-cr");
	if (!is_text(&header.machine, ARCH_NAME))
		return error_new(CR_IMAGE, "The image is of a %s machine, this one is " ARCH_NAME,
				 header.machine.data);
	image->vdso = header.vdso;
	image->cpu = (const char *)header.cpu.data;
	image->ids = (struct id_map){header.users, header.groups};
	image->clocks = header.clocks;
	return check_requires(&header);
}

static struct cr_error *check_processor(struct image *image)
{
	char *features, *missing;

	TRY(cpu_features(image->pool, &features));
	TRY(cpu_missing(image->pool, image->cpu, features, &missing));
	if (!*missing)
		return NULL;
	return error_remedy(
		error_new(CR_HOST,
			  "The image comes from a processor with features that this one lacks: %s",
			  missing),
		"Programs have found them and may use them: restart it on a host that has them");
}

struct cr_error *header_check_host(struct image *image)
{
	TRY(check_processor(image));
	if (image->vdso == vdso_fingerprint())
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "The image comes from a kernel with another vdso"),
		"Restart it on a host with the same kernel: moving between kernels is not "
		"supported yet");
}

static const struct field no_fields[] = {
	FIELD_END,
};

static uint64_t count_records(const struct image *image)
{
	return image->objects.count + image->processes.count + image->threads +
	       image->zombies.count;
}

struct cr_error *header_write_end(struct image *image, struct record_writer *writer)
{
	TRY(record_put_array(writer, 3));
	TRY(record_put_text(writer, HEADER_END));
	TRY(record_put_uint(writer, count_records(image)));
	return record_put(writer, no_fields, image);
}

struct cr_error *header_check_end(struct image *image, struct record_reader *reader,
				  uint64_t records)
{
	if (records != count_records(image))
		return error_new(CR_IMAGE,
				 "The image should hold %lu objects and tasks and holds %lu",
				 (unsigned long)records, (unsigned long)count_records(image));
	return record_skip(reader);
}
