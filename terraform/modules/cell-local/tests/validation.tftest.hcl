# What must be refused before anything is asked of a fleet. Plans only: no fleet is needed.

variables {
  id       = "cell-04"
  data_dir = "/srv/fleet"
}

run "a_good_cell_is_planned_with_its_defaults" {
  command = plan

  assert {
    condition     = terraform_data.created_as.input.failureDomain == "cell-04"
    error_message = "A cell without a failure domain fails alone."
  }
  assert {
    condition     = output.capacity.tenants == 100000 && output.capacity.max_tenant_share == 0.5
    error_message = "Defaults are filled in."
  }
}

run "an_id_in_capitals_is_refused" {
  command = plan
  variables {
    id = "Cell-04"
  }
  expect_failures = [var.id]
}

run "an_id_that_breaks_out_of_the_shell_is_refused" {
  command = plan
  variables {
    id = "x\"; rm -rf ~; \""
  }
  expect_failures = [var.id]
}

run "a_relative_data_folder_is_refused" {
  command = plan
  variables {
    data_dir = "fleet"
  }
  expect_failures = [var.data_dir]
}

run "a_relative_cellctl_is_refused" {
  command = plan
  variables {
    cellctl = "./cellctl"
  }
  expect_failures = [var.cellctl]
}

run "an_unknown_tier_is_refused" {
  command = plan
  variables {
    tiers = ["gold", "platinum"]
  }
  expect_failures = [var.tiers]
}

run "a_share_above_one_is_refused" {
  command = plan
  variables {
    capacity = { max_tenant_share = 1.5 }
  }
  expect_failures = [var.capacity]
}

run "half_a_tenant_is_refused" {
  command = plan
  variables {
    capacity = { tenants = 0.5 }
  }
  expect_failures = [var.capacity]
}

run "an_empty_region_is_refused" {
  command = plan
  variables {
    region = ""
  }
  expect_failures = [var.region]
}

run "an_empty_failure_domain_is_refused" {
  command = plan
  variables {
    failure_domain = ""
  }
  expect_failures = [var.failure_domain]
}
