ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "adopted" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage_at" timestamp with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage_goal" text DEFAULT 'enforce' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "would_refuse_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."router" ADD COLUMN "would_refuse_at" timestamp with time zone;