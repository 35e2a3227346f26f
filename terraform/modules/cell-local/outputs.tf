output "id" {
  description = "The cell's id, known to depend on the cell being open for placement."
  value       = terraform_data.cell.output.id
}

output "region" {
  description = "Where the cell stands."
  value       = var.region
}

output "capacity" {
  description = "What fits, with defaults filled in."
  value       = var.capacity
}
