/* What the command line needs of the machine's side without knowing it: filled in by src/main.c. */
#ifndef SBX_UI_CLI_BACKEND_H
#define SBX_UI_CLI_BACKEND_H

#include <jansson.h>
#include <stdbool.h>

#include "core/err.h"
#include "core/secretstore.h"

struct backend {
    int (*image_build)(void (*progress)(double fraction, const char *text, void *arg), void *arg, struct err *e);
    int (*image_pack)(const char *id, struct err *e);
    int (*seed_make)(struct err *e);
    json_t *(*image_list)(struct err *e);
    int (*image_remove)(const char *id, struct err *e);
    bool (*image_exists)(void);
    json_t *(*template_load)(const char *name, struct err *e);
    json_t *(*template_list)(struct err *e);
    int (*template_remove)(const char *name, struct err *e);
    void (*template_sweep)(void);
    int (*template_save)(const char *sandbox, const char *to, const json_t *note, struct err *e);
    int (*template_freeze)(const char *sandbox, const char *to, const json_t *note, struct err *e);
    int (*template_check_name)(const char *name, struct err *e);
    /* net/diskscan.h */
    int (*disk_holds)(const char *path, const struct secretstore *store, char *service, size_t cap, struct err *e);
    /* Can KVM be used?  The reason (with the mending command) goes to text otherwise. */
    bool (*kvm_works)(char *text, size_t cap);
    bool (*limits_available)(char *text, size_t cap);
};

extern struct backend backend;

#endif
