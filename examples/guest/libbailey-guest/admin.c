/*
 * admin.c - the admin page: who may restrict whom.
 */
#include "bailey_guest.h"

enum { TAKE_AWAY = 1 << 31, GRANTS_SHIFT = 8 };

enum protect_status bailey_admin_grant(volatile struct protect_admin *admin, unsigned door,
                                       uint32_t grants)
{
    admin->grant = door | (uint64_t)grants << GRANTS_SHIFT;
    return (enum protect_status)admin->grant;
}

enum protect_status bailey_admin_revoke(volatile struct protect_admin *admin, unsigned door,
                                        uint32_t grants)
{
    admin->grant = door | (uint64_t)grants << GRANTS_SHIFT | (uint32_t)TAKE_AWAY;
    return (enum protect_status)admin->grant;
}

enum protect_status bailey_admin_destroy(volatile struct protect_admin *admin, unsigned door)
{
    admin->destroy = door;
    return (enum protect_status)admin->destroy;
}
