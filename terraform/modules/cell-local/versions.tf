terraform {
  # terraform_data came with 1.4; `terraform test` with 1.6.
  required_version = ">= 1.6"
}
