/* What a scenario says of its outcome: `expect` and `budgets`. */
#ifndef MP_HARNESS_SCENARIO_RULES_H
#define MP_HARNESS_SCENARIO_RULES_H

#include "harness/scenario.h"

mp_code mp_scenario_expect(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err);
mp_code mp_scenario_budgets(mp_arena *a, const mp_yaml *root, mp_scenario *out, mp_error *err);

#endif
